//! Prometheus' text format for what comes and goes with its labels, such as standbys: a recorder would show for ever what
//! it has once been told.

use std::fmt::Write;

/// What a metric is to Prometheus.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Counter,
    Gauge,
}

/// Metrics, as they will be read.
#[derive(Default)]
pub(super) struct Text(String);

impl Text {
    /// A metric that there is one of.
    pub(super) fn one(&mut self, name: &str, kind: Kind, help: &str, value: f64) {
        self.many(name, kind, help, [(Vec::new(), value)]);
    }

    /// A metric with labels; none is written where there are no values.
    pub(super) fn many<'a>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        values: impl IntoIterator<Item = (Vec<(&'a str, String)>, f64)>,
    ) {
        let mut values = values.into_iter().peekable();
        if values.peek().is_none() {
            return;
        }
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in values {
            let labels: Vec<String> =
                labels.iter().map(|(key, text)| format!("{key}=\"{}\"", escaped(text))).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let _ = writeln!(self.0, "{name}{labels} {value}");
        }
        self.0.push('\n');
    }

    /// A histogram: upper bounds with how many values were not above each, and of all values number and sum.
    pub(super) fn histogram(
        &mut self,
        name: &str,
        help: &str,
        within: impl IntoIterator<Item = (f64, u64)>,
        (count, sum): (u64, f64),
    ) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} histogram");
        for (bound, n) in within {
            let _ = writeln!(self.0, "{name}_bucket{{le=\"{bound}\"}} {n}");
        }
        let _ = writeln!(
            self.0,
            "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {sum}\n{name}_count {count}\n"
        );
    }

    pub(super) fn into_string(self) -> String {
        self.0
    }
}

/// A label's value.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_labels() {
        let mut text = Text::default();
        text.one("a_total", Kind::Counter, "All of a", 3.0);
        let labels = |name: &str| vec![("standby", name.to_owned()), ("sync", "quorum".to_owned())];
        text.many("lag", Kind::Gauge, "How far", [(labels("d\"b\\1\n"), 0.25), (labels("b"), 7.0)]);
        text.many("none", Kind::Gauge, "Nothing", []);
        let wanted = "# HELP a_total All of a\n# TYPE a_total counter\na_total 3\n\n# HELP lag How far\n# TYPE lag gauge\n\
            lag{standby=\"d\\\"b\\\\1\\n\",sync=\"quorum\"} 0.25\nlag{standby=\"b\",sync=\"quorum\"} 7\n\n";
        assert_eq!(text.into_string(), wanted);
        let mut text = Text::default();
        text.histogram("took_seconds", "Time", [(0.001, 1), (5.0, 3)], (4, 61.5));
        let wanted = "# HELP took_seconds Time\n# TYPE took_seconds histogram\ntook_seconds_bucket{le=\"0.001\"} 1\n\
            took_seconds_bucket{le=\"5\"} 3\ntook_seconds_bucket{le=\"+Inf\"} 4\ntook_seconds_sum 61.5\ntook_seconds_count 4\n\n";
        assert_eq!(text.into_string(), wanted);
    }
}
