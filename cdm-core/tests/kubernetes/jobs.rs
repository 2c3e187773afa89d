//! Jobs: `wp` does what was meant and nothing else, with credentials that nobody sees.

use std::sync::Arc;
use std::time::Duration;

use cdm_core::domain::{Color, DatabaseName, Digest, Uid};
use cdm_core::ports::{ClusterOps, ErrorKind, ImageWant, Job, JobFailure, JobKind, JobState, Outcome};
use cdm_testkit::installation::Installation;
use cdm_testkit::kubernetes::{Container, Containers, Exit, Fate, Site, WordPress};

use crate::lab::{CANARY, IMAGES, Lab, NAMESPACE, ingress};

const DONE: JobState = JobState::Succeeded { failed: Vec::new() };

fn database(uid: Uid) -> String {
    DatabaseName::of(uid).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_titles_install_a_site_of_that_title() {
    let lab = Lab::start(ingress()).await;
    for title in [
        "A Title",
        "--exec=system('id');",
        "--url=https://other.example.com",
        "@alias",
        "it's \"quoted\" `here` $(id) ${HOME} $$ $(CDM_TABLE)",
        "x; wp eval 'exit;' && true | cat > /tmp/x #",
        "-h",
    ] {
        let uid = lab.cx().uid();
        let job = lab.finish(&lab.install(uid, title)).await;
        assert_eq!(job.state, DONE, "{title}: {}", job.log);
        assert!(job.log.contains("WordPress installed successfully"), "{}", job.log);
        let site = lab.wordpress.site(&database(uid)).expect("a site");
        assert_eq!((site.title.as_str(), site.installations), (title, 1));
        assert_eq!(site.home, format!("https://{uid}.example.com"));
    }
    lab.assert_allowed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_is_installed_is_not_installed_again() {
    let lab = Lab::start(ingress()).await;
    let uid = lab.cx().uid();
    for _ in 0..2 {
        let job = lab.finish(&lab.install(uid, "A Title")).await;
        assert_eq!(job.state, DONE, "{}", job.log);
    }
    assert_eq!(lab.wordpress.site(&database(uid)).map(|site| site.installations), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_theme_is_activated_or_missing() {
    let lab = Lab::start(ingress()).await;
    let uid = lab.cx().uid();
    assert_eq!(lab.finish(&lab.install(uid, "A Title")).await.state, DONE);
    assert_eq!(lab.finish(&lab.theme(uid, "shop")).await.state, DONE);
    assert_eq!(lab.wordpress.site(&database(uid)).map(|site| site.theme), Some("shop".to_owned()));
    let job = lab.finish(&lab.theme(uid, "none")).await;
    let JobState::Failed { message, cause: JobFailure::ThemeMissing } = job.state else { panic!("{job:?}") };
    assert!(message.contains("could not be found"), "{message}");
    assert!(job.log.contains("could not be found"), "{}", job.log);
    lab.assert_allowed();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_that_was_cut_short_is_recognized_wherever_it_was_cut() {
    let lab = Lab::start(ingress()).await;
    for cut in 0..=Installation::WRITES {
        let uid = lab.cx().uid();
        lab.wordpress.cut_installs([cut]);
        let killed = lab.finish(&lab.install(uid, "A Title")).await;
        assert!(matches!(killed.state, JobState::Failed { cause: JobFailure::Other, .. }), "{killed:?}");
        let next = lab.finish(&lab.install(uid, "A Title")).await;
        let complete = |site: Option<Site>| site.is_some_and(|site| site.contents.is_complete());
        if next.state == DONE {
            assert!(complete(lab.wordpress.site(&database(uid))), "after {cut}: {}", next.log);
            continue;
        }
        let JobState::Failed { cause: JobFailure::InstallIncomplete, .. } = next.state else {
            panic!("after {cut}: {next:?}")
        };
        lab.wordpress.renew(&database(uid));
        assert_eq!(lab.finish(&lab.install(uid, "A Title")).await.state, DONE, "after {cut}");
        assert!(complete(lab.wordpress.site(&database(uid))), "after {cut}");
    }
    assert_eq!(lab.wordpress.requests(), 0, "an installation asks its own hostname");
    lab.assert_allowed();
}

#[tokio::test(flavor = "multi_thread")]
async fn code_that_ends_every_command_is_no_success() {
    let lab = Lab::start(ingress()).await;
    let uid = lab.cx().uid();
    assert_eq!(lab.finish(&lab.install(uid, "A Title")).await.state, DONE);
    lab.wordpress.quit_early();
    for spec in [lab.install(uid, "A Title"), lab.theme(uid, "shop")] {
        let job = lab.finish(&spec).await;
        assert!(matches!(job.state, JobState::Failed { cause: JobFailure::EndedEarly, .. }), "{job:?}");
    }
    let job = lab.finish(&lab.job(JobKind::FlushCaches { uids: vec![uid, lab.cx().uid()] })).await;
    let JobState::Succeeded { failed } = &job.state else { panic!("{job:?}") };
    assert_eq!(failed.len(), 2, "{job:?}");
    assert_eq!(JobFailure::of_output(&failed[0].1), JobFailure::EndedEarly, "{job:?}");
    assert_eq!(lab.wordpress.site(&database(uid)).map(|site| site.flushes), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn wordpress_elsewhere_than_in_the_working_directory_is_found_by_its_path() {
    for (path, found) in [(None, false), (Some("/srv/wordpress".to_owned()), true)] {
        let lab = Lab::with_settings(|settings| settings.wp_path.clone_from(&path)).await;
        lab.wordpress.put_at("/srv/wordpress");
        let job = lab.finish(&lab.install(lab.cx().uid(), "A Title")).await;
        match job.state {
            JobState::Succeeded { .. } => assert!(found, "{path:?}"),
            JobState::Failed { cause: JobFailure::WordPressNotFound, .. } => assert!(!found, "{path:?}"),
            JobState::Failed { .. } | JobState::Running => panic!("{job:?}"),
        }
    }
}

/// Containers in which a site's own code ends every command before it has done anything.
#[derive(Debug)]
struct Quitting;

impl Containers for Quitting {
    fn run(&self, _: &Container) -> Exit {
        Exit::success("")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_without_an_error_is_not_believed() {
    let lab = Lab::with_containers(Arc::new(Quitting)).await;
    let uid = lab.cx().uid();
    for spec in [lab.install(uid, "A Title"), lab.theme(uid, "shop")] {
        let job = lab.finish(&spec).await;
        assert!(matches!(job.state, JobState::Failed { cause: JobFailure::Other, .. }), "{job:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_site_of_a_batch_that_fails_does_not_keep_the_others() {
    let lab = Lab::start(ingress()).await;
    let mut uids = Vec::new();
    for _ in 0..20 {
        let uid = lab.cx().uid();
        assert_eq!(lab.finish(&lab.install(uid, "A Title")).await.state, DONE);
        uids.push(uid);
    }
    // One that has an anchor and no site, and one that has nothing.
    let empty = lab.cx().uid();
    let spec = lab.route_spec(empty, &["empty.example.com"]);
    assert_eq!(lab.cluster.put_route(&lab.cx().call(), &spec).await, Outcome::Applied(()));
    uids.insert(7, empty);
    let unknown = lab.cx().uid();
    uids.push(unknown);
    let job = lab.finish(&lab.job(JobKind::FlushCaches { uids: uids.clone() })).await;
    let JobState::Succeeded { failed } = &job.state else { panic!("{job:?}") };
    let failed: Vec<Uid> = failed.iter().map(|(uid, _)| *uid).collect();
    assert_eq!(failed, [empty, unknown]);
    assert!(job.log.contains("not installed"), "{}", job.log);
    // Those of the same pod are done, and the last one stands in for a slot that was left over.
    for uid in uids.iter().filter(|uid| !failed.contains(uid)) {
        let flushes = lab.wordpress.site(&database(*uid)).map_or(0, |site| site.flushes);
        assert!((1..=2).contains(&flushes), "{flushes}");
    }
    let pods = lab.api.objects("pods", NAMESPACE).into_iter();
    let of_batch = pods.filter(|pod| pod["metadata"]["labels"]["cdm/job"] == "flush-caches");
    assert_eq!(of_batch.count(), 2, "21 sites, twenty at most in a pod");
    lab.assert_allowed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_sites_caches_are_flushed() {
    let lab = Lab::start(ingress()).await;
    let uid = lab.cx().uid();
    assert_eq!(lab.finish(&lab.install(uid, "A Title")).await.state, DONE);
    assert_eq!(lab.finish(&lab.job(JobKind::FlushCaches { uids: vec![uid] })).await.state, DONE);
    assert_eq!(lab.wordpress.site(&database(uid)).map(|site| site.flushes), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_does_not_come_fails_a_job_at_once() {
    let lab = Lab::start(ingress()).await;
    let image = |digest: Digest| ImageWant::Digest(digest);
    let fence = lab.cluster.service(Color::Blue).await.expect("a service").fence;
    lab.api.fate(&IMAGES.first.to_string(), Fate::Missing);
    let set = lab.cluster.set_image(&lab.cx().call(), Color::Blue, fence, &image(IMAGES.first)).await;
    assert_eq!(set, Outcome::Applied(()));
    let before = lab.api.now();
    let spec = lab.install(lab.cx().uid(), "A Title");
    let job = lab.finish(&spec).await;
    let JobState::Failed { message, cause: JobFailure::Other } = &job.state else { panic!("{job:?}") };
    assert!(message.contains("Pull"), "{message}");
    let took = lab.api.now().since(before);
    assert!(took < Duration::from_secs(60), "it took {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_in_the_jobs_secret_and_nowhere_else() {
    let lab = Lab::start(ingress()).await;
    let uid = lab.cx().uid();
    let (install, theme) = (lab.install(uid, "A Title"), lab.theme(uid, "shop"));
    let mut logs = lab.finish(&install).await.log;
    logs += &lab.finish(&theme).await.log;
    let flush = lab.job(JobKind::FlushCaches { uids: vec![uid, lab.cx().uid()] });
    logs += &lab.finish(&flush).await.log;
    for resource in ["jobs", "pods", "configmaps", "ingresses", "deployments"] {
        for object in lab.api.objects(resource, NAMESPACE) {
            assert!(!object.to_string().contains(CANARY), "{resource}");
        }
    }
    assert!(!logs.contains(CANARY), "{logs}");
    assert!(!format!("{:?}", lab.cluster).contains("token"));
    assert_eq!(lab.api.objects("secrets", NAMESPACE).len(), 0, "they went with the ends of their jobs");
    let addresses = lab.api.object("configmaps", NAMESPACE, flush.name.as_str()).expect("the addresses");
    assert_eq!(addresses["metadata"]["ownerReferences"][0]["kind"], "Job");
    lab.api.advance(Duration::from_secs(25 * 3600));
    assert_eq!(lab.api.object("configmaps", NAMESPACE, flush.name.as_str()), None);
    assert_eq!(lab.cluster.job(&install.name).await, Ok(None));
    lab.assert_allowed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jobs_pod_has_nothing_of_the_services_labels_and_probes() {
    let lab = Lab::start(ingress()).await;
    let spec = lab.install(lab.cx().uid(), "A Title");
    lab.finish(&spec).await;
    let pods = lab.api.objects("pods", NAMESPACE);
    let of_job = |pod: &&serde_json::Value| pod["metadata"]["labels"]["app.kubernetes.io/component"] == "job";
    let pods: Vec<_> = pods.iter().filter(of_job).collect();
    assert_eq!(pods.len(), 1);
    let text = pods[0].to_string();
    for gone in ["readinessProbe", "livenessProbe", "preStop", "containerPort", "proxy:1", "\"app\":"] {
        assert!(!text.contains(gone), "{gone}");
    }
    assert!(text.contains("CDM_TABLE"), "the service's settings are the job's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_theme_job_of_a_site_that_has_nothing_is_not_started() {
    let lab = Lab::start(ingress()).await;
    let spec = lab.theme(lab.cx().uid(), "shop");
    let Outcome::NotApplied(error) = lab.cluster.run_job(&lab.cx().call(), &spec).await else {
        panic!("started")
    };
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert_eq!(lab.cluster.job(&spec.name).await, Ok(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_takes_too_long_is_ended_by_the_cluster() {
    #[derive(Debug)]
    struct Slow(WordPress);
    impl Containers for Slow {
        fn run(&self, container: &Container) -> Exit {
            Exit { takes: Duration::from_secs(3600), ..self.0.run(container) }
        }
    }
    let lab = Lab::with_containers(Arc::new(Slow(WordPress::default()))).await;
    let spec = lab.install(lab.cx().uid(), "A Title");
    assert_eq!(lab.cluster.run_job(&lab.cx().call(), &spec).await, Outcome::Applied(()));
    lab.api.advance(Duration::from_secs(500));
    let running = Job { state: JobState::Running, log: String::new() };
    assert_eq!(lab.cluster.job(&spec.name).await, Ok(Some(running)));
    lab.api.advance(Duration::from_secs(200));
    let job = lab.ended(&spec.name).await;
    let JobState::Failed { message, .. } = &job.state else { panic!("{job:?}") };
    assert!(message.contains("DeadlineExceeded"), "{message}");
}
