//! The live table of the demo: rates and lag, redrawn in place on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use gravity_engine::status::Status;

use crate::cli::show::{self, Paint};

/// How often a terminal is redrawn, and how often a plain line is written.
const REDRAW: Duration = Duration::from_millis(200);
const LINE: Duration = Duration::from_secs(1);

/// Events over time, for rates over the last seconds.
#[derive(Default)]
struct Rate {
    looks: std::collections::VecDeque<(Instant, u64)>,
}

impl Rate {
    const WINDOW: Duration = Duration::from_secs(2);

    fn look(&mut self, now: Instant, count: u64) -> String {
        self.looks.push_back((now, count));
        while self.looks.len() > 2 && now.duration_since(self.looks[0].0) > Rate::WINDOW {
            self.looks.pop_front();
        }
        let (began, first) = self.looks[0];
        show::rate(count.saturating_sub(first), now.duration_since(began))
    }
}

/// Draws on stderr: stdout stays free for the answer.
pub struct Panel {
    is_terminal: bool,
    paint: Paint,
    drawn_lines: usize,
    next: Instant,
    log: Rate,
    view: Rate,
    told: Rate,
}

impl Panel {
    pub fn new() -> Panel {
        Panel {
            is_terminal: std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb"),
            paint: Paint::stderr(),
            drawn_lines: 0,
            next: Instant::now(),
            log: Rate::default(),
            view: Rate::default(),
            told: Rate::default(),
        }
    }

    pub fn period(&self) -> Duration {
        if self.is_terminal { REDRAW } else { LINE }
    }

    /// Draws the last state, time or not.
    pub fn finish(&mut self, status: &Status, sent: u64, told: u64) {
        self.next = Instant::now();
        self.draw(status, sent, told);
    }

    /// Draws when it is time.
    pub fn draw(&mut self, status: &Status, sent: u64, told: u64) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = now + self.period();
        let (Some(route), source) = (status.routes.first(), status.sources.first()) else { return };
        let received = source.map_or(sent, |source| source.received);
        let rates = (self.log.look(now, received), self.view.look(now, route.read), self.told.look(now, told));
        let waiting = status.exporters.first().map_or(0, |exporter| exporter.lag_events);
        let out = &mut std::io::stderr();
        if !self.is_terminal {
            let _ = writeln!(
                out,
                "log {} ({})  view {} ({}), {} behind, {}  told {} ({})",
                show::count(received),
                rates.0,
                show::count(route.read),
                rates.1,
                show::count(route.lag_events),
                show::age_of(route.lag_seconds),
                show::count(told),
                rates.2
            );
            return;
        }
        let row = |name: &str, count: u64, rate: &str, lag: String| {
            format!("  {name:<22}{:>14}{rate:>14}{lag:>26}", show::count(count))
        };
        let lines = [
            self.paint.bold(&format!("  {:<22}{:>14}{:>14}{:>26}", "", "EVENTS", "RATE", "BEHIND")),
            row("durable in the log", received, &rates.0, String::new()),
            row(
                "in the views",
                route.read,
                &rates.1,
                format!("{}, {}", show::count(route.lag_events), show::age_of(route.lag_seconds)),
            ),
            row("told by the exporter", told, &rates.2, show::count(waiting)),
            format!(
                "  read {} = {} applied + {} filtered + {} unmatched + {} parked + {} skipped",
                show::count(route.read),
                show::count(route.applied),
                show::count(route.filtered),
                show::count(route.unmatched),
                show::count(route.parked),
                show::count(route.skipped)
            ),
        ];
        if self.drawn_lines > 0 {
            let _ = write!(out, "\x1b[{}A", self.drawn_lines);
        }
        for line in &lines {
            let _ = writeln!(out, "\x1b[2K{line}");
        }
        let _ = out.flush();
        self.drawn_lines = lines.len();
    }
}
