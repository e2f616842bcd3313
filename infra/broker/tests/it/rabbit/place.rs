//! Where the tests have their brokers from: a namespace of its own on a server that others use too.

use std::{
    env,
    io::{Write, stderr},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use broker::{
    Limits, SharedBroker,
    contract::{End, Fixture},
    rabbit::{Config, Rabbit},
};
use lapin::{
    Channel, Connection, ConnectionProperties,
    options::{ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::FieldTable,
    uri::AMQPUri,
};
use model::{Lane, Queue, SystemClock, queue::Names};
use tokio::time::{Instant, sleep};

use super::proxy::{Network, Proxy};

/// AMQP messages a queue holds, of which each holds up to 64 messages.
const PARCELS_MAX: u64 = 200;

/// How long anything may take: far more than it does.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);

/// A namespace of its own, behind a network of its own.
pub(super) struct Place {
    url: String,
    pub(super) names: Names,
    pub(super) config: Config,
    /// The networks of the brokers that were opened here.
    pub(super) proxies: Vec<Proxy>,
    broker: Option<Arc<Rabbit>>,
}

/// Where the server is; `None`, and told, when there is none.
#[expect(clippy::disallowed_methods, reason = "tests are told by the environment where their servers are")]
pub(crate) fn server() -> Option<String> {
    let url = env::var("TEST_AMQP_URL").ok();
    if url.is_none() {
        assert!(env::var("TEST_REQUIRE_SERVERS").is_err(), "TEST_AMQP_URL must say where RabbitMQ is");
        #[expect(clippy::explicit_write, reason = "what `eprintln!` says is heard only when a test fails")]
        writeln!(stderr(), "SKIPPED: TEST_AMQP_URL does not say where RabbitMQ is").unwrap();
    }
    url
}

/// A fresh place; `None` when there is no server.
pub(super) async fn start() -> Option<Place> {
    let url = server()?;
    let namespace = format!("test-{:016x}.", rand::random::<u64>());
    let names = Names::new(namespace.clone());
    let mut config = Config::new(&url, Arc::new(SystemClock)).unwrap();
    config.namespace = namespace;
    // A slow machine must not look like a node that is gone.
    config.confirm_timeout = DEADLINE / 2;
    config.limits = Some(Limits { messages_max: PARCELS_MAX, bytes_max: 64 * 1024 * 1024 });
    Some(Place { url, names, config, proxies: Vec::new(), broker: None })
}

impl Place {
    /// Connects by way of a network that can fail.
    pub(super) async fn connect(&mut self) -> Arc<Rabbit> {
        self.connect_by(1).await
    }

    /// Connects by way of so many networks, as if each led to a node of its own.
    pub(super) async fn connect_by(&mut self, networks: usize) -> Arc<Rabbit> {
        let uri: AMQPUri = self.url.parse().unwrap();
        let (user, vhost) = (&uri.authority.userinfo, uri.vhost.replace('/', "%2f"));
        let mut urls = Vec::new();
        for _ in 0..networks {
            let proxy = Proxy::start(format!("{}:{}", uri.authority.host, uri.authority.port)).await;
            urls.push(format!("amqp://{}:{}@{}/{vhost}", user.username, user.password, proxy.address));
            self.proxies.push(proxy);
        }
        let mut config = Config::new(&urls.join(","), Arc::clone(&self.config.clock)).unwrap();
        config.namespace.clone_from(&self.config.namespace);
        (config.limits, config.confirm_timeout) = (self.config.limits, self.config.confirm_timeout);
        Rabbit::connect(config).await.unwrap()
    }

    /// Lets every network here do this.
    pub(super) fn network(&self, network: Network) {
        self.proxies.iter().for_each(|proxy| proxy.set(network));
    }

    /// A channel that no network is between.
    pub(super) async fn admin(&self) -> (Connection, Channel) {
        let connection = Connection::connect(&self.url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        (connection, channel)
    }

    /// Waits until the server has noticed that nobody consumes any more: until then it hands out to the dead.
    async fn nobody_consumes(&self) {
        let (_connection, channel) = self.admin().await;
        let deadline = Instant::now() + DEADLINE;
        for name in durable(&self.names) {
            while look(&channel, &name).await.1 > 0 {
                assert!(Instant::now() < deadline, "{name} still has consumers");
                sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

/// AMQP messages and consumers of a queue.
pub(super) async fn look(channel: &Channel, name: &str) -> (u32, u32) {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare(name.into(), options, FieldTable::default()).await.unwrap();
    (queue.message_count(), queue.consumer_count())
}

fn durable(names: &Names) -> Vec<String> {
    let queues = Queue::all().flat_map(|queue| [names.queue(queue), names.retry(queue)]);
    queues.chain([names.dead()]).collect()
}

#[async_trait]
impl Fixture for Place {
    async fn open(&mut self) -> SharedBroker {
        let broker = self.connect().await;
        self.broker = Some(Arc::clone(&broker));
        broker
    }

    async fn end(&mut self, how: End) {
        let broker = self.broker.take().unwrap();
        assert_eq!(Arc::strong_count(&broker), 1, "somebody still has a handle of the broker");
        match how {
            End::Closed => broker.close().await,
            End::Killed => self.network(Network::Cut),
        }
        drop(broker);
        self.nobody_consumes().await;
    }

    fn messages_max(&self) -> u64 {
        PARCELS_MAX * 64
    }
}

impl Drop for Place {
    /// Takes away what the test has left on the server.
    fn drop(&mut self) {
        let (url, names) = (self.url.clone(), self.names.clone());
        let swept = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(sweep(url, names));
        });
        swept.join().unwrap();
    }
}

async fn sweep(url: String, names: Names) {
    let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    for queue in durable(&names) {
        channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
    }
    let lanes = Lane::ALL.into_iter().flat_map(|lane| [names.push_lane(lane), names.bell_lane(lane)]);
    for exchange in lanes.chain([names.push(), names.bell()]) {
        channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await.unwrap();
    }
    connection.close(200, "bye".into()).await.unwrap();
}
