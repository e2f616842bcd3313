//! The contract on a real RabbitMQ, and what only this implementation has to bear: a network that fails.
//!
//! `TEST_AMQP_URL` says where it is: `amqp://guest:guest@127.0.0.1:5672`. Without it these tests are skipped, and say so;
//! with `TEST_REQUIRE_SERVERS=1` they fail.

mod network;
pub(crate) mod place;
mod proxy;
mod routing;

use place::start;

broker::contract_suite!(if start);
