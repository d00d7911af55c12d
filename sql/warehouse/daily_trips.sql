-- One row per day of New York: how many trips began, and what they earned.
-- @owner city-data
create table warehouse.daily_trips (
  day        date          primary key,
  trips      bigint        not null check (trips > 0),
  card_trips bigint        not null,
  fares      decimal(38,2) not null,
  tips       decimal(38,2) not null
);
comment on column warehouse.daily_trips.day is 'date of the pick-up in New York';
comment on column warehouse.daily_trips.fares is 'sum of metered fares, USD';
comment on column warehouse.daily_trips.tips is 'sum of tips paid by card, USD';

truncate warehouse.daily_trips;
insert into warehouse.daily_trips
select
  (pickup_at at time zone 'America/New_York')::date as day,
  count(*)                                          as trips,
  count(*) filter (p.name = 'credit card')          as card_trips,
  sum(fare)                                         as fares,
  sum(tip)                                          as tips
from warehouse.trips t
join warehouse.payment_types p using (payment_type)
group by all;
