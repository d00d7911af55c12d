-- Orders that can be trusted, one row per order.
-- @max_quarantine 10%
create table warehouse.orders (
  order_id    bigint        primary key,
  customer_id bigint        not null,
  ordered_at  timestamptz   not null,
  amount      decimal(10,2) not null check (amount >= 0), -- one row of the example breaks this
  country     varchar       not null check (length(country) = 2)
);
comment on column warehouse.orders.amount is 'EUR, shipping included';

-- The row of the later file wins an order_id.
insert or replace into warehouse.orders
select order_id, customer_id, ordered_at, amount, country
from lake.orders; -- @since load(lake.orders)
