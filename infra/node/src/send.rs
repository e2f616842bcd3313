//! `fanfare send`: a message from the shell.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use lab::Api;
use serde_json::{Value, json};

#[derive(Args)]
pub(crate) struct Options {
    /// The API key, as `fanfare app create` printed it.
    #[arg(long, env = "FANFARE_KEY", hide_env_values = true)]
    key: String,
    /// Where products push to.
    #[arg(long, env = "FANFARE_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// all, device:ID, user:ID, group:ID or filter:EXPRESSION; ids may be several, with commas between.
    #[arg(long)]
    to: String,
    /// Business type: the last level of the topic.
    #[arg(long = "type", default_value = "default")]
    kind: String,
    /// How long it may take to arrive, in seconds.
    #[arg(long, default_value_t = 86_400)]
    ttl_s: u64,
    /// The body: JSON, or text, which is sent as a JSON string.
    payload: String,
}

pub(crate) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let payload = serde_json::from_str(&options.payload).unwrap_or(Value::String(options.payload));
    let body = json!({
        "to": audience(&options.to)?, "type": options.kind, "ttl_s": options.ttl_s, "payload": payload,
    });
    let answer = Api::new(&options.url, &options.key).post("/v1/messages", &body).await?;
    println!("{answer:#}");
    Ok(ExitCode::SUCCESS)
}

/// The field `to` of a send.
fn audience(to: &str) -> anyhow::Result<Value> {
    if to == "all" {
        return Ok(json!("all"));
    }
    let (kind, rest) = to.split_once(':').context("--to is `all`, or device:, user:, group: or filter: and a value")?;
    let ids = || rest.split(',').collect::<Vec<_>>();
    Ok(match kind {
        "device" => json!({ "devices": ids() }),
        "user" => json!({ "users": ids() }),
        "group" => json!({ "group": rest }),
        "filter" => json!({ "filter": rest }),
        other => bail!("--to {other}:… is not known; use all, device:, user:, group: or filter:"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audiences_are_written_as_the_api_wants_them() {
        assert_eq!(audience("all").unwrap(), json!("all"));
        assert_eq!(audience("device:a,b").unwrap(), json!({ "devices": ["a", "b"] }));
        assert_eq!(audience("filter:tag(\"x:y\")").unwrap(), json!({ "filter": "tag(\"x:y\")" }));
        assert!(audience("everybody").is_err() && audience("planet:mars").is_err());
    }
}
