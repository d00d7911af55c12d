-- Trips that can be trusted, one row per trip.
-- @owner city-data   @max_quarantine 5%
create table warehouse.trips (
  trip_id      varchar       primary key,
  pickup_at    timestamptz   not null,
  dropoff_at   timestamptz   not null check (dropoff_at >= pickup_at),
  pickup_zone  integer       not null check (pickup_zone between 1 and 265),
  dropoff_zone integer       not null check (dropoff_zone between 1 and 265),
  passengers   smallint      check (passengers between 0 and 9),
  distance     decimal(9,2)  not null check (distance between 0 and 1000),
  payment_type tinyint       not null references warehouse.payment_types (payment_type),
  fare         decimal(10,2) not null check (fare between 0 and 1000),
  tip          decimal(10,2) not null check (tip >= 0),
  total        decimal(10,2) not null
);
comment on column warehouse.trips.distance is 'as metered, miles';
comment on column warehouse.trips.fare is 'metered fare, USD';
comment on column warehouse.trips.tip is 'tips paid by card, USD';
comment on column warehouse.trips.total is 'charged to the passenger, USD';

-- Records without a payment type come from a dispatch system without a meter and have no checked fare.
insert or replace into warehouse.trips
select
  _record_id          as trip_id,
  pickup_datetime     as pickup_at,
  dropoff_datetime    as dropoff_at,
  pickup_location_id  as pickup_zone,
  dropoff_location_id as dropoff_zone,
  passenger_count     as passengers,
  trip_distance       as distance,
  payment_type,
  fare_amount         as fare,
  tip_amount          as tip,
  total_amount        as total
from lake.yellow_trips
where payment_type is not null; -- @since load(lake.yellow_trips)
