//! `cdm demo`: the whole story of a site in one process, every claim observed from outside.

mod stage;
mod story;

use std::io::Write;
use std::time::Instant;

use cdm_core::wiring::EndSignal;
use futures_util::future::{Either, select};
use serde_json::{Value, json};

use crate::args::{DemoArgs, Format};
use crate::error::CliError;
use crate::exit::Exit;
use crate::printer::Printer;
use crate::view::Shape;
use crate::world::Interrupt;
use stage::{Stage, Trouble};

/// What the demo ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Every claim held.
    Held,
    /// At least one did not.
    Broken,
    /// Ctrl-C came before the end.
    Interrupted(EndSignal),
}

/// One claim, and whether it was seen to hold.
#[derive(Debug)]
struct Check {
    chapter: usize,
    claim: String,
    seen: Result<String, String>,
}

/// Tells the story and keeps what was checked.
struct Narrator<'a> {
    out: &'a mut (dyn Write + Send),
    checks: Vec<Check>,
    chapters: Vec<String>,
}

impl Narrator<'_> {
    fn say(&mut self, text: &str) -> Result<(), Trouble> {
        Ok(writeln!(self.out, "{text}")?)
    }

    fn chapter(&mut self, title: &str) -> Result<(), Trouble> {
        self.chapters.push(title.to_owned());
        Ok(writeln!(self.out, "\n{}. {title}", self.chapters.len())?)
    }

    /// Keeps a claim with what was seen, and says so.
    fn check(&mut self, claim: &str, seen: Result<String, String>) -> Result<(), Trouble> {
        let (mark, what) = match &seen {
            Ok(what) => ("ok ", what),
            Err(what) => ("NOT", what),
        };
        // What was seen may be a whole sentence of the platform's; then it has lines of its own.
        let gap = if claim.len() + what.len() > 90 { "\n         " } else { " " };
        writeln!(self.out, "   {mark} {claim}:{gap}{}", what.replace("; ", &format!(";{gap}")))?;
        self.checks.push(Check { chapter: self.chapters.len(), claim: claim.to_owned(), seen });
        Ok(())
    }

    /// The closing table.
    fn close(&mut self, seconds: f64) -> Result<Ending, Trouble> {
        let held = self.checks.iter().filter(|check| check.seen.is_ok()).count();
        writeln!(self.out, "\nWhat was checked from outside, through the API and the router:\n")?;
        writeln!(self.out, "  HELD    CHAPTER")?;
        for (chapter, title) in (1..).zip(&self.chapters) {
            let of = self.checks.iter().filter(|check| check.chapter == chapter);
            let all = of.clone().count();
            let held = of.filter(|check| check.seen.is_ok()).count();
            writeln!(self.out, "  {:<7} {chapter}. {title}", format!("{held}/{all}"))?;
        }
        for check in self.checks.iter().filter(|check| check.seen.is_err()) {
            writeln!(self.out, "\n  NOT: {}. {}", check.chapter, check.claim)?;
        }
        writeln!(self.out, "\n{held} of {} claims held, in {seconds:.1} s", self.checks.len())?;
        Ok(if held == self.checks.len() { Ending::Held } else { Ending::Broken })
    }

    /// The same for a program.
    fn report(&self, seconds: f64) -> Value {
        let claims = self.checks.iter().map(|check| {
            let (Ok(seen) | Err(seen)) = &check.seen;
            json!({ "chapter": check.chapter, "claim": check.claim, "held": check.seen.is_ok(), "seen": seen })
        });
        json!({ "chapters": self.chapters, "claims": claims.collect::<Vec<_>>(), "seconds": seconds })
    }
}

/// Plays the story and says what it sees; `interrupted` ends it, or a platform that is kept.
///
/// # Errors
/// When the platform cannot be started, or does not answer at all.
pub async fn run(args: DemoArgs, printer: &mut Printer, interrupted: Interrupt) -> Result<Exit, CliError> {
    // For a program the result is the data, and the story goes beside it.
    let played = match printer.format {
        Format::Table => play(args, &mut *printer.out, interrupted).await,
        Format::Json | Format::Yaml => play(args, &mut *printer.err, interrupted).await,
    };
    match played {
        Ok((ending, report)) => {
            if printer.format != Format::Table {
                printer.value(Shape::Done, &report)?;
            }
            Ok(match ending {
                Ending::Held => Exit::Done,
                Ending::Broken => Exit::Failed,
                Ending::Interrupted(by) => Exit::from(by),
            })
        }
        Err(trouble) if closed(&*trouble) => Err(CliError::Closed),
        Err(trouble) => Err(CliError::Failed(format!("the demo cannot go on: {}", whole(&*trouble)))),
    }
}

#[expect(clippy::disallowed_methods, reason = "a demo says how long it took")]
async fn play(
    args: DemoArgs,
    out: &mut (dyn Write + Send),
    interrupted: Interrupt,
) -> Result<(Ending, Value), Trouble> {
    let began = Instant::now();
    let stage = Stage::start().await?;
    let mut narrator = Narrator { out, checks: Vec::new(), chapters: Vec::new() };
    let told = {
        let story = std::pin::pin!(story::play(&stage, &mut narrator));
        match select(story, interrupted.clone()).await {
            Either::Left((told, _)) => Ok(told),
            Either::Right((by, _)) => Err(by),
        }
    };
    let told = match told {
        Ok(told) => told,
        Err(by) => {
            stage.end().await;
            narrator.say("\nInterrupted. Nothing of it is left.")?;
            return Ok((Ending::Interrupted(by), narrator.report(began.elapsed().as_secs_f64())));
        }
    };
    told?;
    let seconds = began.elapsed().as_secs_f64();
    let ending = narrator.close(seconds)?;
    let report = narrator.report(seconds);
    if args.keep {
        narrator.say(&stage.invitation())?;
        interrupted.await;
    } else {
        narrator
            .say("\nNothing of it is left. To look around in such a platform yourself: cdm demo --keep")?;
    }
    stage.end().await;
    Ok((ending, report))
}

/// Whether whoever read the story has gone.
fn closed(trouble: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    let source = trouble.downcast_ref::<std::io::Error>();
    source.is_some_and(|source| source.kind() == std::io::ErrorKind::BrokenPipe)
}

/// An error with everything below it.
pub(crate) fn whole(error: &(dyn std::error::Error + 'static)) -> String {
    let mut message = error.to_string();
    let mut below = error.source();
    while let Some(cause) = below {
        message = format!("{message}: {cause}");
        below = cause.source();
    }
    message
}
