//! A proxy for moto that enforces the limits of S3 which moto ignores: requests with more than 1,000 keys or without a
//! checksum, and presigned requests whose signature has expired or does not cover what was sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cdm_core::adapters::SystemClock;
use cdm_core::ports::Clock;
use cdm_testkit::proxy::{HttpRequest, HttpResponse, Proxy};

/// The server of a bucket, and the clock with which it validates requests.
#[derive(Debug)]
pub(crate) struct StrictServer {
    pub(crate) proxy: Proxy,
    /// Seconds by which the clock of the server is ahead.
    pub(crate) ahead: Arc<AtomicU64>,
}

pub(crate) async fn start(moto: &str, clock: SystemClock) -> StrictServer {
    let ahead = Arc::new(AtomicU64::new(0));
    let shift = Arc::clone(&ahead);
    let reject = move |request: &HttpRequest| {
        let now = clock.wall().millis() / 1000 + shift.load(Ordering::Relaxed);
        rejection(request, now).map(|(status, code)| error(status, code))
    };
    let proxy = Proxy::intercepting(moto, Arc::new(clock), reject).await.expect("a proxy");
    StrictServer { proxy, ahead }
}

/// Returns an error response of S3.
pub(crate) fn error(status: u16, code: &str) -> HttpResponse {
    let text = format!("<Error><Code>{code}</Code><Message>a-message-of-the-service</Message></Error>");
    HttpResponse::new(status, "application/xml", &text)
}

fn rejection(request: &HttpRequest, now: u64) -> Option<(u16, &'static str)> {
    let has = |name: &str| request.headers.iter().any(|(known, _)| known.starts_with(name));
    if request.operation() == "DeleteObjects" {
        let named = String::from_utf8_lossy(&request.body).matches("<Object>").count();
        if !(1..=1_000).contains(&named) {
            return Some((400, "MalformedXML"));
        }
        if !has("content-md5") && !has("x-amz-checksum-") {
            return Some((400, "InvalidRequest"));
        }
    }
    if request.method == "PUT" && !has("content-length") {
        return Some((411, "MissingContentLength"));
    }
    let Some(signed) = request.query("X-Amz-SignedHeaders") else {
        return (!has("authorization")).then_some((403, "AccessDenied"));
    };
    if has("authorization") {
        return Some((400, "InvalidArgument"));
    }
    let signed: Vec<_> = signed.split("%3B").collect();
    let uncovered =
        |(name, _): &(String, String)| name.starts_with("x-amz-") && !signed.contains(&name.as_str());
    if !signed.contains(&"host")
        || !signed.iter().all(|name| has(name))
        || request.headers.iter().any(uncovered)
    {
        return Some((403, "SignatureDoesNotMatch"));
    }
    let begun = seconds(request.query("X-Amz-Date")?)?;
    let good_for: u64 = request.query("X-Amz-Expires")?.parse().ok()?;
    (now > begun + good_for).then_some((403, "AccessDenied"))
}

/// Parses a time such as `20261125T183426Z` into seconds since the epoch.
fn seconds(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let months = [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let years: u64 = (1970..year).map(|year| if leap(year) { 366 } else { 365 }).sum();
    let days = years + months.iter().take(usize::try_from(month - 1).ok()?).sum::<u64>() + day - 1;
    Some(days * 86_400 + number(9, 11)? * 3_600 + number(11, 13)? * 60 + number(13, 15)?)
}

#[test]
fn times_are_parsed() {
    assert_eq!(seconds("19700101T000000Z"), Some(0));
    assert_eq!(seconds("20240229T235959Z"), Some(1_709_251_199));
    assert_eq!(seconds("20261125T183426Z"), Some(1_795_631_666));
}
