//! `/metrics`: the figures of `status` in Prometheus' text format, and the process's own. Base units; names are constants.

use std::fmt::Write;

use gravity_engine::status::{RunState, Status};

use super::body::Budget;

/// Name, type and help of every metric, in the order of the page. The documented list is made from this.
pub const METRICS: &[(&str, &str, &str)] = &[
    ("gravity_log_first_sequence", "gauge", "First sequence that can be read."),
    ("gravity_log_last_sequence", "gauge", "Last durable sequence."),
    ("gravity_log_bytes", "gauge", "Size of the log on disk."),
    ("gravity_log_hot_bytes", "gauge", "Of these in hot generations."),
    ("gravity_log_segments", "gauge", "Sealed segments."),
    ("gravity_log_dedupe_entries", "gauge", "Ids and idempotency keys that are remembered."),
    ("gravity_log_writable", "gauge", "1 while the log can write."),
    ("gravity_source_up", "gauge", "1 while the source runs."),
    ("gravity_source_received_total", "counter", "Messages taken in, duplicates included."),
    ("gravity_source_duplicates_total", "counter", "Of these already in the log."),
    (
        "gravity_source_lag_events",
        "gauge",
        "Records between our position and the source's end, where the protocol tells.",
    ),
    ("gravity_route_up", "gauge", "1 while the route runs."),
    ("gravity_route_checkpoint_sequence", "gauge", "Last sequence that the views have."),
    ("gravity_route_lag_events", "gauge", "Events that the views do not have yet."),
    ("gravity_route_lag_seconds", "gauge", "Age of the oldest event that the views do not have yet."),
    ("gravity_route_read_total", "counter", "Events read: the sum of the five below."),
    ("gravity_route_applied_total", "counter", "Events applied."),
    ("gravity_route_filtered_total", "counter", "Events that a rule left out."),
    ("gravity_route_unmatched_total", "counter", "Events that no rule names."),
    ("gravity_route_parked", "gauge", "Events parked now: failed and waiting."),
    ("gravity_route_failed", "gauge", "Events parked with an error of their own."),
    ("gravity_route_waiting", "gauge", "Events parked behind one of these."),
    ("gravity_route_skipped_total", "counter", "Events that an operator left out."),
    ("gravity_exporter_up", "gauge", "1 while the subscription runs."),
    ("gravity_exporter_cursor_sequence", "gauge", "Last sequence that the target was told of."),
    ("gravity_exporter_lag_events", "gauge", "Events that the target was not told of yet."),
    ("gravity_exporter_lag_seconds", "gauge", "Age of the oldest of these."),
    ("gravity_exporter_delivered_total", "counter", "Messages delivered."),
    ("gravity_exporter_parked", "gauge", "Messages parked now."),
    ("gravity_api_body_budget_bytes", "gauge", "Room left for request bodies."),
    ("gravity_build_info", "gauge", "Version of the program."),
    ("process_cpu_seconds_total", "counter", "User and system time."),
    ("process_resident_memory_bytes", "gauge", "Resident memory."),
    ("process_open_fds", "gauge", "Open file descriptors."),
    ("process_threads", "gauge", "Threads."),
    ("process_start_time_seconds", "gauge", "Start of the process since 1970."),
];

/// Collects samples; the page groups them by metric, as the format wants.
struct Page {
    samples: Vec<Vec<String>>,
}

impl Page {
    fn put(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let index = METRICS.iter().position(|(known, ..)| *known == name).expect("every metric is in the table");
        let labels: Vec<String> = labels.iter().map(|(key, text)| format!("{key}=\"{}\"", escape(text))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        self.samples[index].push(format!("{name}{labels} {value}"));
    }

    fn render(self) -> String {
        let mut out = String::new();
        for ((name, kind, help), samples) in METRICS.iter().zip(self.samples) {
            if samples.is_empty() {
                continue;
            }
            // Writing into a String cannot fail.
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{}", samples.join("\n"));
        }
        out
    }
}

fn escape(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn up(state: RunState) -> f64 {
    if matches!(state, RunState::Running | RunState::Building | RunState::Ended) { 1.0 } else { 0.0 }
}

/// The whole page.
pub fn page(status: &Status, budget: &Budget) -> String {
    let mut page = Page { samples: vec![Vec::new(); METRICS.len()] };
    let log = &status.log;
    page.put("gravity_log_first_sequence", &[], log.first as f64);
    page.put("gravity_log_last_sequence", &[], log.last as f64);
    page.put("gravity_log_bytes", &[], log.bytes as f64);
    page.put("gravity_log_hot_bytes", &[], log.hot_bytes as f64);
    page.put("gravity_log_segments", &[], f64::from(log.segments));
    page.put("gravity_log_dedupe_entries", &[], log.dedupe_entries as f64);
    page.put("gravity_log_writable", &[], f64::from(u8::from(log.state == "running")));
    for source in &status.sources {
        let labels = [("source", source.name.as_str()), ("type", source.kind.as_str())];
        page.put("gravity_source_up", &labels, up(source.state));
        page.put("gravity_source_received_total", &labels, source.received as f64);
        page.put("gravity_source_duplicates_total", &labels, source.duplicates as f64);
        if let Some(lag) = source.lag_events {
            page.put("gravity_source_lag_events", &labels, lag as f64);
        }
    }
    for route in &status.routes {
        let labels = [("route", route.name.as_str()), ("type", route.kind.as_str())];
        page.put("gravity_route_up", &labels, up(route.state));
        page.put("gravity_route_checkpoint_sequence", &labels, route.checkpoint as f64);
        page.put("gravity_route_lag_events", &labels, route.lag_events as f64);
        page.put("gravity_route_lag_seconds", &labels, route.lag_seconds);
        page.put("gravity_route_read_total", &labels, route.read as f64);
        page.put("gravity_route_applied_total", &labels, route.applied as f64);
        page.put("gravity_route_filtered_total", &labels, route.filtered as f64);
        page.put("gravity_route_unmatched_total", &labels, route.unmatched as f64);
        page.put("gravity_route_parked", &labels, route.parked as f64);
        page.put("gravity_route_failed", &labels, route.failed as f64);
        page.put("gravity_route_waiting", &labels, route.waiting as f64);
        page.put("gravity_route_skipped_total", &labels, route.skipped as f64);
    }
    for exporter in &status.exporters {
        let labels = [
            ("exporter", exporter.name.as_str()),
            ("route", exporter.route.as_str()),
            ("type", exporter.kind.as_str()),
        ];
        page.put("gravity_exporter_up", &labels, up(exporter.state));
        page.put("gravity_exporter_cursor_sequence", &labels, exporter.cursor as f64);
        page.put("gravity_exporter_lag_events", &labels, exporter.lag_events as f64);
        page.put("gravity_exporter_lag_seconds", &labels, exporter.lag_seconds);
        page.put("gravity_exporter_delivered_total", &labels, exporter.delivered as f64);
        page.put("gravity_exporter_parked", &labels, exporter.parked as f64);
    }
    page.put("gravity_api_body_budget_bytes", &[], budget.bytes() as f64);
    page.put("gravity_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    if let Some(process) = crate::platform::Process::look() {
        page.put("process_cpu_seconds_total", &[], process.cpu_seconds);
        page.put("process_resident_memory_bytes", &[], process.resident_bytes as f64);
        page.put("process_open_fds", &[], process.open_files as f64);
        page.put("process_threads", &[], process.threads as f64);
        page.put("process_start_time_seconds", &[], process.started);
    }
    page.render()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The documented list is the table above.
    #[test]
    fn the_documented_list_is_made_from_the_table() {
        let mut text = String::from(
            "# Metrics\n\n`GET /metrics`, Prometheus' text format, role `viewer` where tokens are set. Base units; made from the \
             program's own table.\n\n| Name | Type | Labels | Meaning |\n|---|---|---|---|\n",
        );
        for (name, kind, help) in METRICS {
            let labels = match name.split('_').nth(1) {
                Some("source") => "source, type",
                Some("route") => "route, type",
                Some("exporter") => "exporter, route, type",
                Some("build") => "version",
                _ => "",
            };
            let _ = writeln!(text, "| `{name}` | {kind} | {labels} | {help} |");
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
        if std::env::var_os("GRAVITY_UPDATE").is_some() {
            std::fs::write(&path, text).expect("written");
        } else {
            let documented = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(documented == text, "docs/metrics.md is not up to date: run the test with GRAVITY_UPDATE=1");
        }
    }
}
