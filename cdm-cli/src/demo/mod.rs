//! `cdm demo`: the whole story of a site in one process, every claim observed from outside.

mod stage;
mod story;

use std::io::Write;
use std::time::Instant;

use crate::args::DemoArgs;
use crate::error::CliError;
use crate::exit::Exit;
use crate::printer::Printer;
use stage::{Stage, Trouble};

/// What the demo ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Every claim held.
    Held,
    /// At least one did not.
    Broken,
}

/// One claim, and whether it was seen to hold.
#[derive(Debug)]
struct Check {
    claim: String,
    seen: Result<String, String>,
}

/// Tells the story and keeps what was checked.
struct Narrator<'a> {
    out: &'a mut (dyn Write + Send),
    checks: Vec<Check>,
    chapter: usize,
}

impl Narrator<'_> {
    fn say(&mut self, text: &str) -> Result<(), Trouble> {
        Ok(writeln!(self.out, "{text}")?)
    }

    fn chapter(&mut self, title: &str) -> Result<(), Trouble> {
        self.chapter += 1;
        Ok(writeln!(self.out, "\n{}. {title}", self.chapter)?)
    }

    /// Keeps a claim with what was seen, and says so.
    fn check(&mut self, claim: &str, seen: Result<String, String>) -> Result<(), Trouble> {
        match &seen {
            Ok(what) => writeln!(self.out, "   ok  {claim}: {what}")?,
            Err(what) => writeln!(self.out, "   NOT {claim}: {what}")?,
        }
        self.checks.push(Check { claim: claim.to_owned(), seen });
        Ok(())
    }

    /// The closing table.
    fn close(&mut self, seconds: f64) -> Result<Ending, Trouble> {
        let held = self.checks.iter().filter(|check| check.seen.is_ok()).count();
        writeln!(self.out, "\nChecked from outside, through the API and the router:\n")?;
        let wide = self.checks.iter().map(|check| check.claim.chars().count()).max().unwrap_or(0);
        for check in &self.checks {
            let mark = if check.seen.is_ok() { "yes" } else { "NO" };
            writeln!(self.out, "  {:<wide$}  {mark}", check.claim)?;
        }
        writeln!(self.out, "\n{held} of {} claims held, in {seconds:.1} s", self.checks.len())?;
        Ok(if held == self.checks.len() { Ending::Held } else { Ending::Broken })
    }
}

/// Plays the story and says what it sees; `interrupted` ends a platform that is kept.
///
/// # Errors
/// When the platform cannot be started, or does not answer at all.
pub async fn run(
    args: DemoArgs,
    printer: &mut Printer,
    interrupted: impl Future<Output = ()> + Send,
) -> Result<Exit, CliError> {
    match play(args, &mut *printer.out, interrupted).await {
        Ok(Ending::Held) => Ok(Exit::Done),
        Ok(Ending::Broken) => Ok(Exit::Failed),
        Err(trouble) => Err(CliError::Failed(format!("the demo cannot go on: {}", whole(&*trouble)))),
    }
}

#[expect(clippy::disallowed_methods, reason = "a demo says how long it took")]
async fn play(
    args: DemoArgs,
    out: &mut (dyn Write + Send),
    interrupted: impl Future<Output = ()> + Send,
) -> Result<Ending, Trouble> {
    let began = Instant::now();
    let stage = Stage::start().await?;
    let mut narrator = Narrator { out, checks: Vec::new(), chapter: 0 };
    story::play(&stage, &mut narrator).await?;
    let ending = narrator.close(began.elapsed().as_secs_f64())?;
    if args.keep {
        narrator.say(&stage.invitation())?;
        interrupted.await;
    }
    stage.end().await;
    Ok(ending)
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
