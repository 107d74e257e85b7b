//! Messages of eagleray itself: to stderr, from warnings on, or as `EAGLERAY_LOG` says.
//!
//! Set up once in each process that imports the module, so a worker has what its template has: nothing of it may need a
//! thread, or a lock that somebody could hold in the moment of a fork.

use std::io::{IsTerminal, Write};

use eagleray_runtime::session::SESSION_DIR;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// The environment variable with the directives, as [`EnvFilter`] reads them.
const DIRECTIVES: &str = "EAGLERAY_LOG";

/// What holds where no directive says anything else.
const DEFAULT: &str = "warn";

/// Descriptor 2, without the lock of `std::io::stderr`. A message is one write.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(rustix::io::write(rustix::stdio::stderr(), bytes)?)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The filter for some directives, or what is wrong with them.
fn parse(text: &str) -> Result<EnvFilter, String> {
    let mut directives: Vec<&str> = text.split(',').map(str::trim).filter(|directive| !directive.is_empty()).collect();
    let is_level = |directive: &&str| directive.parse::<LevelFilter>().is_ok();
    for directive in directives.iter().filter(|directive| !is_level(directive)) {
        let target = directive.split(['=', '[']).next().unwrap_or_default();
        // Any word is the name of some target, so a misspelt level would silence everything.
        if !target.is_empty() && !target.starts_with("eagleray") {
            return Err(format!("{target:?} is neither a level nor a part of eagleray"));
        }
    }
    if !directives.iter().any(is_level) {
        directives.push(DEFAULT);
    }
    EnvFilter::builder().parse(directives.join(",")).map_err(|error| error.to_string())
}

/// Begins to write messages, unless this process has another subscriber.
pub(crate) fn start() {
    let text = std::env::var(DIRECTIVES).unwrap_or_default();
    let filter = parse(&text);
    let problem = filter.as_ref().err().cloned();
    // A template writes where its driver does; but its workers do not.
    let is_driver = std::env::var_os(SESSION_DIR).is_none();
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|_| EnvFilter::new(DEFAULT)))
        .with_writer(|| Stderr)
        .with_ansi(is_driver && std::io::stderr().is_terminal())
        .log_internal_errors(false)
        .try_init();
    if let (Ok(()), true, Some(problem)) = (started, is_driver, problem) {
        tracing::warn!(
            "{DIRECTIVES}={text:?} is not understood, so only warnings and errors are shown: {problem}. \
             Write a level (error, warn, info, debug, trace), or directives such as eagleray_runtime=debug."
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_levels_and_parts_of_eagleray() {
        for text in ["", "debug", "DEBUG", "off", " info , eagleray_runtime=trace", "eagleray_runtime::pool", "2"] {
            assert!(parse(text).is_ok(), "{text}");
        }
        for text in ["loud", "debugg", "eagleray_runtime=loud", "tokio=debug", "eagleray[", "=", "a=b=c"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_no_directive_names_stays_at_warnings() {
        assert_eq!(parse("eagleray_store=debug").unwrap().max_level_hint(), Some(LevelFilter::DEBUG));
        assert_eq!(parse("").unwrap().max_level_hint(), Some(LevelFilter::WARN));
        assert_eq!(parse("off").unwrap().max_level_hint(), Some(LevelFilter::OFF));
        assert_eq!(parse("eagleray_store=off").unwrap().max_level_hint(), Some(LevelFilter::WARN));
    }
}
