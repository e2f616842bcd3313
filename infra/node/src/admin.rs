//! Commands for the operator: apps, keys, and whether the configuration will do.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use model::{App as Tenant, AppId, Clock as _, Env, Key, KeyId, Limits, Scope, SystemClock, UplinkRules, sign};
use store::SharedStore;

use crate::{backends, config::Config};

#[derive(Subcommand)]
pub(crate) enum App {
    /// Create an app and its first key; the key is shown once.
    Create {
        /// The app's name.
        id: AppId,
        /// Make the key for this environment: test keys reach test devices only.
        #[arg(long, default_value = "live")]
        env: Env,
        /// Let the key create further apps and keys over HTTP.
        #[arg(long)]
        admin: bool,
    },
    /// Make another key for an app; it is shown once.
    Key {
        /// The app's name.
        id: AppId,
        /// The environment whose devices it reaches.
        #[arg(long, default_value = "live")]
        env: Env,
        /// What it allows; may be given several times. Default: all but `admin`.
        #[arg(long = "scope")]
        scopes: Vec<Scope>,
    },
    /// List the apps and their keys.
    List,
}

pub(crate) async fn run(command: App, config: &Config) -> anyhow::Result<ExitCode> {
    let store = backends::open_store(config).await?;
    match command {
        App::Create { id, env, admin } => {
            let token = create(&store, &id, env, admin, Limits::default()).await?;
            // Whoever forgot to say where the store is would have a key that no server knows.
            let place = match config.redis() {
                Some(_) => "Redis, by store.url".to_owned(),
                None => format!("embedded in {}: no store.url is set", config.data_dir.display()),
            };
            println!(
                "app    {id}\nkey    {token}\nstore  {place}\n\nThe key is shown this once; keep it like a password."
            );
        }
        App::Key { id, env, scopes } => {
            let scopes = if scopes.is_empty() { Scope::PRODUCT.to_vec() } else { scopes };
            println!("{}", make_key(&store, &id, env, scopes).await?);
        }
        App::List => list(&store).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Creates an app and its first key; returns the whole key.
pub(crate) async fn create(
    store: &SharedStore,
    id: &AppId,
    env: Env,
    admin: bool,
    limits: Limits,
) -> anyhow::Result<String> {
    let app = Tenant {
        id: id.clone(),
        created_at: SystemClock.now(),
        device_secret: sign::secret(rand::random()),
        limits,
        uplink: UplinkRules::default(),
    };
    if !store.create_app(app).await? {
        bail!("there is an app {id} already; `fanfare app key {id}` makes another key for it");
    }
    let extra = admin.then_some(Scope::Admin);
    make_key(store, id, env, Scope::PRODUCT.into_iter().chain(extra).collect()).await
}

async fn make_key(store: &SharedStore, app: &AppId, env: Env, scopes: Vec<Scope>) -> anyhow::Result<String> {
    let now = SystemClock.now();
    let key = sign::ApiKey { id: KeyId::new(env, now, rand::random()), secret: sign::secret(rand::random()) };
    let digest = sign::digest(&key.secret);
    let kept = Key { id: key.id, app: app.clone(), digest, scopes, created_at: now, expires_at: None };
    store.put_key(kept).await?;
    Ok(key.token())
}

async fn list(store: &SharedStore) -> anyhow::Result<()> {
    for app in store.apps().await? {
        println!("{}", app.id);
        for key in store.keys(&app.id).await? {
            let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.as_str()).collect();
            println!("  {}  {}", key.id, scopes.join(" "));
        }
    }
    Ok(())
}

/// Says what the configuration means; what could not start is an error.
pub(crate) async fn check(config: &Config) -> anyhow::Result<ExitCode> {
    let data = config.data_dir.display();
    println!("products push to   http://{}", config.ingest.listen);
    println!("devices connect to mqtt://{0} or ws://{0}/mqtt", config.access_point.listen);
    if let Some((listen, files)) = config.tls() {
        access_point::Certificates::load(files).context("access_point.tls_certificate, access_point.tls_key")?;
        println!("under TLS to       mqtts://{listen} or wss://{listen}/mqtt");
    }
    let place = |url: &Option<String>| url.as_deref().map_or(format!("embedded, in {data}"), without_secrets);
    if config.broker.url.is_some() && config.store.url.is_some() {
        println!("nodes ask filters  http://{}, {} a secret", config.filter.listen, with(&config.filter.secret));
    }
    println!("broker             {}", place(&config.broker.url));
    println!("store              {}", place(&config.store.url));
    if let Some((name, address)) = config.public_listeners().first() {
        println!("{name} = {address} can be reached from other machines: it will start only when an app has a key");
    }
    println!("ok");
    Ok(ExitCode::SUCCESS)
}

const fn with(secret: &Option<String>) -> &'static str {
    if secret.is_some() { "with" } else { "without" }
}

/// URLs as they may be shown: without user and password.
fn without_secrets(urls: &str) -> String {
    let hide = |url: &str| match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://{rest}"),
        _ => url.to_owned(),
    };
    urls.split(',').map(|url| hide(url.trim())).collect::<Vec<_>>().join(", ")
}
