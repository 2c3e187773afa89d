//! `cdm demo`: the lifecycle of sites in one process; each claim is checked from outside.

mod platform;
mod scenario;

use std::io::Write;
use std::time::Instant;

use cdm_core::wiring::EndSignal;
use futures_util::future::{Either, select};
use serde_json::{Value, json};

use crate::args::{DemoArgs, Format};
use crate::client::Received;
use crate::error::CliError;
use crate::exit::Exit;
use crate::io::Interrupt;
use crate::printer::Printer;
use platform::{DemoError, DemoPlatform};

/// How the demo ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// The demo reached its end, and all claims hold.
    Held,
    /// At least one claim does not hold.
    Broken,
    /// Ctrl-C ended the demo early.
    Interrupted(EndSignal),
}

/// A claim, with what was observed; `Err` if the claim does not hold.
#[derive(Debug)]
struct Check {
    chapter: usize,
    claim: String,
    observation: Result<String, String>,
}

/// Prints the demo and records the claims.
struct Reporter<'a> {
    out: &'a mut (dyn Write + Send),
    checks: Vec<Check>,
    chapters: Vec<String>,
}

impl Reporter<'_> {
    fn print(&mut self, text: &str) -> Result<(), DemoError> {
        Ok(writeln!(self.out, "{text}")?)
    }

    fn chapter(&mut self, title: &str) -> Result<(), DemoError> {
        self.chapters.push(title.to_owned());
        Ok(writeln!(self.out, "\n{}. {title}", self.chapters.len())?)
    }

    /// Records a claim with what was observed, and prints both.
    fn check(&mut self, claim: &str, observation: Result<String, String>) -> Result<(), DemoError> {
        let (mark, what) = match &observation {
            Ok(what) => ("ok ", what),
            Err(what) => ("NOT", what),
        };
        // A long observation, such as an error message, is printed on separate lines.
        let gap = if claim.len() + what.len() > 90 { "\n         " } else { " " };
        writeln!(self.out, "   {mark} {claim}:{gap}{}", what.replace("; ", &format!(";{gap}")))?;
        self.checks.push(Check { chapter: self.chapters.len(), claim: claim.to_owned(), observation });
        Ok(())
    }

    /// Prints the closing table.
    fn close(&mut self, seconds: f64) -> Result<Ending, DemoError> {
        let held = self.checks.iter().filter(|check| check.observation.is_ok()).count();
        writeln!(self.out, "\nWhat was checked from outside, through the API and the router:\n")?;
        writeln!(self.out, "  HELD    CHAPTER")?;
        for (chapter, title) in (1..).zip(&self.chapters) {
            let of = self.checks.iter().filter(|check| check.chapter == chapter);
            let all = of.clone().count();
            let held = of.filter(|check| check.observation.is_ok()).count();
            writeln!(self.out, "  {:<7} {chapter}. {title}", format!("{held}/{all}"))?;
        }
        for check in self.checks.iter().filter(|check| check.observation.is_err()) {
            writeln!(self.out, "\n  NOT: {}. {}", check.chapter, check.claim)?;
        }
        writeln!(self.out, "\n{held} of {} claims held, in {seconds:.1} s", self.checks.len())?;
        Ok(if held == self.checks.len() { Ending::Held } else { Ending::Broken })
    }

    /// Returns the report for programs.
    fn report(&self, seconds: f64) -> Value {
        let claims = self.checks.iter().map(|check| {
            let (Ok(observation) | Err(observation)) = &check.observation;
            json!({ "chapter": check.chapter, "claim": check.claim, "held": check.observation.is_ok(), "seen": observation })
        });
        json!({ "chapters": self.chapters, "claims": claims.collect::<Vec<_>>(), "seconds": seconds })
    }
}

/// Runs the demo and prints what it observes; `interrupted` ends it, or a platform that is kept.
///
/// # Errors
/// When the platform cannot be started, or does not respond.
pub async fn run(args: DemoArgs, printer: &mut Printer, interrupted: Interrupt) -> Result<Exit, CliError> {
    // For a program, the report is the result, and the text goes to standard error.
    let outcome = match printer.format {
        Format::Table => execute(args, &mut *printer.out, interrupted).await,
        Format::Json | Format::Yaml => execute(args, &mut *printer.err, interrupted).await,
    };
    match outcome {
        Ok((ending, report)) => {
            if printer.format != Format::Table {
                printer.value(&Received::local(report)?)?;
            }
            Ok(match ending {
                Ending::Held => Exit::Done,
                Ending::Broken => Exit::Failed,
                Ending::Interrupted(by) => Exit::from(by),
            })
        }
        Err(error) if closed(&*error) => Err(CliError::OutputClosed),
        Err(error) => Err(CliError::Failed(format!("the demo cannot continue: {}", error_chain(&*error)))),
    }
}

#[expect(clippy::disallowed_methods, reason = "the demo prints how long it took")]
async fn execute(
    args: DemoArgs,
    out: &mut (dyn Write + Send),
    interrupted: Interrupt,
) -> Result<(Ending, Value), DemoError> {
    let began = Instant::now();
    let platform = DemoPlatform::start().await?;
    let mut reporter = Reporter { out, checks: Vec::new(), chapters: Vec::new() };
    let result = {
        let scenario = std::pin::pin!(scenario::execute(&platform, &mut reporter));
        match select(scenario, interrupted.clone()).await {
            Either::Left((result, _)) => Ok(result),
            Either::Right((by, _)) => Err(by),
        }
    };
    let result = match result {
        Ok(result) => result,
        Err(by) => {
            platform.end().await;
            reporter.print("\nInterrupted. The data of the demo is deleted.")?;
            return Ok((Ending::Interrupted(by), reporter.report(began.elapsed().as_secs_f64())));
        }
    };
    result?;
    let seconds = began.elapsed().as_secs_f64();
    let ending = reporter.close(seconds)?;
    let report = reporter.report(seconds);
    if args.keep {
        reporter.print(&platform.next_steps())?;
        interrupted.await;
    } else {
        reporter
            .print("\nThe data of the demo is deleted. To explore a running platform: cdm demo --keep")?;
    }
    platform.end().await;
    Ok((ending, report))
}

/// Returns whether the reader has closed the output.
fn closed(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    let source = error.downcast_ref::<std::io::Error>();
    source.is_some_and(|source| source.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Returns an error message with all its causes.
pub(crate) fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut message = error.to_string();
    let mut below = error.source();
    while let Some(cause) = below {
        message = format!("{message}: {cause}");
        below = cause.source();
    }
    message
}
