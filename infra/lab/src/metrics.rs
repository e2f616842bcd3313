//! What processes tell about themselves, as Prometheus would read it.

use std::net::SocketAddr;

use crate::{Api, Error};

/// A metric of all these processes, added up over its labels that begin with `labels`: `lane="unicast"`, or nothing.
///
/// # Errors
/// [`Error::Unavailable`] when a process does not tell.
pub async fn sum(processes: &[SocketAddr], name: &str, labels: &str) -> Result<f64, Error> {
    let mut sum = 0.0;
    for process in processes {
        let text = Api::new(&format!("http://{process}"), "").text("/metrics").await?;
        sum += text.lines().filter_map(|line| value(line, name, labels)).sum::<f64>();
    }
    Ok(sum)
}

fn value(line: &str, name: &str, labels: &str) -> Option<f64> {
    let rest = line.strip_prefix(name)?;
    let value = match rest.strip_prefix('{') {
        Some(rest) => rest.strip_prefix(labels)?.rsplit_once("} ")?.1,
        None => rest.strip_prefix(' ').filter(|_| labels.is_empty())?,
    };
    value.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_that_of_the_name_and_the_labels() {
        let labelled = r#"fanfare_x_total{lane="unicast",result="new"} 7"#;
        assert_eq!(value(labelled, "fanfare_x_total", r#"lane="unicast""#), Some(7.0));
        assert_eq!(value(labelled, "fanfare_x_total", ""), Some(7.0));
        assert_eq!(value(labelled, "fanfare_x_total", r#"lane="broadcast""#), None);
        assert_eq!(value(labelled, "fanfare_x", ""), None);
        assert_eq!(value("fanfare_y 3.5", "fanfare_y", ""), Some(3.5));
        assert_eq!(value("fanfare_y_total 3.5", "fanfare_y", ""), None);
    }
}
