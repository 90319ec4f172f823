//! Prints the daemons' log lines with the virtual time.

use std::fmt::{self, Write as _};

use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

struct Printer(Instant);

/// Prints to standard error from now on.
pub(crate) fn print_from(start: Instant) {
    // There is no other in this process.
    let _already = tracing::subscriber::set_global_default(Printer(start));
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _infallible = write!(self.0, " {}={value:?}", field.name());
    }
}

impl Subscriber for Printer {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(format!("{:>7} {}", self.0.elapsed().as_millis(), event.metadata().level()));
        event.record(&mut line);
        let _closed = std::io::Write::write_all(&mut std::io::stderr(), (line.0 + "\n").as_bytes());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
