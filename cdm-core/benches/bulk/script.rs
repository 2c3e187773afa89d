//! A script of `kubectl` and `aws`, run if both are available: `CDM_TEST_KUBECTL` and `CDM_TEST_AWS_CLI` name the
//! programs.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use cdm_core::domain::Color;
use tempfile::NamedTempFile;

use crate::raw::{RawClient, route_patch};
use crate::servers::Servers;
use crate::{CpuOwner, Round, cpu, round};

/// Number of sites moved concurrently.
const CONCURRENCY: &str = "8";

/// Moves the first sites to the other service and back.
pub(crate) fn round_trip(servers: &Servers, raw: &mut RawClient, to: Color, sites: u32) -> Option<Round> {
    let program = |name: &str| {
        let found = std::env::var(name).ok().filter(|path| !path.is_empty());
        if found.is_none() {
            eprintln!("skipped: the script, since {name} names no program");
        }
        found
    };
    let (kubectl, aws) = (program("CDM_TEST_KUBECTL")?, program("CDM_TEST_AWS_CLI")?);
    let mut kubeconfig = NamedTempFile::new().expect("a file");
    kubeconfig.write_all(servers.for_kubectl.as_bytes()).expect("a kubeconfig");
    let count = usize::try_from(sites / 2).expect("a small number");
    servers.reset();
    let (begun, before) = (Instant::now(), cpu(CpuOwner::Children));
    for (step, to) in [(1, to.other()), (2, to)] {
        let mut arguments = Vec::new();
        for target in raw.targets.iter_mut().take(count) {
            // Numbers that the raw client does not use.
            let fence = 1_000_000 + target.fence % 1_000_000 * 10 + step;
            let patch = route_patch(target, fence, to).to_string();
            let all = [&raw.table, &target.id, &format!("cdm-{}", target.uid), &patch, to.as_str()];
            arguments.extend(all.iter().flat_map(|word| word.bytes().chain([0])));
            target.fence = fence;
        }
        let mut running = Command::new("xargs")
            .args(["-0", "-n", "5", "-P", CONCURRENCY, "sh"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/bulk/script.sh"))
            .env("KUBECTL", &kubectl)
            .env("AWS", &aws)
            .env("KUBECONFIG", kubeconfig.path())
            .env("AWS_ENDPOINT_URL", &servers.dynamodb)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("xargs");
        running.stdin.take().expect("its input").write_all(&arguments).expect("its arguments");
        assert!(running.wait().expect("its end").success(), "the script failed");
    }
    Some(round((begun.elapsed(), cpu(CpuOwner::Children).saturating_sub(before)), sites, &servers.counts()))
}
