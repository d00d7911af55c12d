-- How a trip was paid for.
-- @owner city-data
create table warehouse.payment_types (
  payment_type tinyint primary key,
  name         varchar not null unique
);
comment on column warehouse.payment_types.payment_type is 'code in the trip records';

truncate warehouse.payment_types;
insert into warehouse.payment_types
select code::tinyint as payment_type, name
from (values (1, 'credit card'), (2, 'cash'), (3, 'no charge'), (4, 'dispute'), (5, 'unknown'), (6, 'voided'))
  as codes(code, name);
