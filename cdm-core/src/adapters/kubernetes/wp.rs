//! The commands of jobs: `wp` with one element per argument, without a shell, and the output that proves their work.

use super::settings::{KubernetesSettings, WpRoot};

/// The mount path of a job's files: the PHP file that `wp` loads, and a site's credentials or the addresses of a batch.
pub(super) const FILES: &str = "/run/cdm";

/// A command in a container with this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) container: &'static str,
    pub(super) argv: Vec<String>,
}

/// Commands that run one after the other; the last one runs in the main container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Commands {
    pub(super) before: Vec<Command>,
    pub(super) last: Command,
    /// For each container, the line that its output has when the work is done. Exit code 0 proves nothing.
    pub(super) proofs: Vec<(&'static str, String)>,
}

/// Prevents the plugins and themes of a site from running.
const SKIP_CODE: [&str; 2] = ["--skip-plugins", "--skip-themes"];

/// Installs WordPress if it is not installed; `core install` checks that by the site's address alone. So the jobs also
/// prove the administrator and the marker of a complete installation: an interrupted installation may have an address,
/// but no administrator or no content. The administrator's password is in the configuration file of `wp`.
pub(super) fn install(settings: &KubernetesSettings, site: &Site<'_>) -> Commands {
    let url = flag("url", site.address);
    let install = [
        "core",
        "install",
        &url,
        &flag("title", site.title),
        &flag("admin_user", site.user),
        &flag("admin_email", site.email),
        "--skip-email",
    ];
    Commands {
        before: vec![
            command(settings, "install", &install),
            command(settings, ADDRESS, &["option", "get", "home", &url, SKIP_CODE[0], SKIP_CODE[1]]),
            command(settings, MARKER, &["option", "get", "cdm_installed", &url, SKIP_CODE[0], SKIP_CODE[1]]),
        ],
        last: command(
            settings,
            PROVE,
            &["user", "get", &literal_argument(site.user), "--field=roles", &url, SKIP_CODE[0], SKIP_CODE[1]],
        ),
        proofs: vec![
            (ADDRESS, site.address.to_owned()),
            (MARKER, "complete".to_owned()),
            (PROVE, "administrator".to_owned()),
        ],
    }
}

/// The container whose log proves the work. Jobs of older versions have only this proof.
pub(super) const PROVE: &str = "prove";
/// The container whose log proves a site's address.
pub(super) const ADDRESS: &str = "address";
/// The container whose log has the marker that [`PRELUDE`] writes at the end of an installation.
pub(super) const MARKER: &str = "mark";

/// The container that flushes caches. The containers of a batch are numbered.
pub(super) const FLUSH: &str = "flush";

/// The prefix of the annotations with the lines that prove a container's work; the name of the container follows.
const PROOF: &str = "cdm/proof";

/// Returns the annotation of a Job with the line that a container prints when its work is done. The last container's
/// annotation has the name that jobs of older versions use.
pub(super) fn proof_annotation(container: &str) -> String {
    if container == PROVE { PROOF.to_owned() } else { format!("{PROOF}-{container}") }
}

/// The arguments of `core install`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site<'a> {
    pub(super) address: &'a str,
    pub(super) title: &'a str,
    pub(super) user: &'a str,
    pub(super) email: &'a str,
}

/// Activates a theme. The name of a theme begins with a letter, a digit or an underscore, so `wp` does not parse it as
/// an option or an alias.
pub(super) fn activate_theme(settings: &KubernetesSettings, address: &str, theme: &str) -> Commands {
    let url = flag("url", address);
    Commands {
        before: vec![command(settings, "activate", &["theme", "activate", &literal_argument(theme), &url])],
        last: command(settings, PROVE, &["option", "get", "stylesheet", &url, SKIP_CODE[0], SKIP_CODE[1]]),
        proofs: vec![(PROVE, theme.to_owned())],
    }
}

/// Flushes the object cache of the site in the configuration file of `wp`.
pub(super) fn flush_caches(settings: &KubernetesSettings) -> Commands {
    let last = command(settings, FLUSH, &["cache", "flush", SKIP_CODE[0], SKIP_CODE[1]]);
    Commands { before: Vec::new(), last, proofs: vec![(FLUSH, FLUSHED.to_owned())] }
}

/// The output of a successful `wp cache flush`, and the termination message of its container.
pub(super) const FLUSHED: &str = "Success: The cache was flushed.";

/// The file that `wp` loads before WordPress: its name in the job's files, and its content.
pub(super) const PRELUDE: (&str, &str) = ("wp-cli.php", include_str!("wp-cli.php"));

fn command(settings: &KubernetesSettings, container: &'static str, arguments: &[&str]) -> Command {
    let arguments = arguments.iter().map(|argument| (*argument).to_owned());
    let mut argv: Vec<String> = settings.wp.iter().cloned().chain(arguments).collect();
    argv.push(flag("require", &format!("{FILES}/{}", PRELUDE.0)));
    if let Some(path) = &settings.wp_path {
        argv.push(flag("path", path));
    }
    if settings.wp_root == WpRoot::Allowed {
        argv.push("--allow-root".to_owned());
    }
    Command { container, argv }
}

/// Returns an option with its value, as one element.
fn flag(name: &str, value: &str) -> String {
    format!("--{name}={}", literal_argument(value))
}

/// Escapes an argument that `wp` gets literally: Kubernetes replaces `$(NAME)` by a variable, and `$$` by `$`.
fn literal_argument(value: &str) -> String {
    value.replace('$', "$$")
}

/// Returns the configuration file of `wp` with the administrator's password; `None` for a password that would need
/// quoting.
pub(super) fn install_configuration(password: &str) -> Option<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    let plain = !password.is_empty() && password.bytes().all(is_plain);
    plain.then(|| format!("core install:\n  admin_password: \"{password}\"\n"))
}

/// Returns the configuration file of `wp` with the URL of a site.
pub(super) fn site_configuration(address: &str) -> String {
    format!("url: {address}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> KubernetesSettings {
        KubernetesSettings::new("sites", "repo")
    }

    fn site(title: &str) -> Vec<String> {
        let site = Site { address: "https://rrr.example.com", title, user: "admin", email: "a@example.com" };
        install(&settings(), &site).before.remove(0).argv
    }

    #[test]
    fn a_title_is_always_one_element() {
        for title in [
            "A Title",
            "--exec=system('id');",
            "@alias",
            "a\" b' c",
            "`id`",
            "x; wp eval 1",
            "--url=https://other.example.com",
        ] {
            let argv = site(title);
            assert_eq!(argv.len(), 9, "{argv:?}");
            assert_eq!(argv[..3], ["wp", "core", "install"]);
            assert_eq!(argv[4], format!("--title={title}"));
        }
    }

    #[test]
    fn a_value_has_no_kubernetes_variable() {
        assert_eq!(site("$(WORDPRESS_DB_HOST) costs 5$")[4], "--title=$$(WORDPRESS_DB_HOST) costs 5$$");
    }

    #[test]
    fn a_theme_is_an_argument_and_its_own_proof() {
        let commands = activate_theme(&settings(), "https://rrr.example.com", "twentytwentysix");
        assert_eq!(commands.before[0].argv[..4], ["wp", "theme", "activate", "twentytwentysix"]);
        assert_eq!(commands.proofs, [(PROVE, "twentytwentysix".to_owned())]);
    }

    #[test]
    fn every_command_has_the_configured_path_and_root_option() {
        let settings = KubernetesSettings {
            wp_path: Some("/srv/wordpress".to_owned()),
            wp_root: WpRoot::Allowed,
            ..settings()
        };
        let site = Site { address: "https://a.example", title: "A", user: "admin", email: "a@example.com" };
        for commands in [
            install(&settings, &site),
            activate_theme(&settings, "https://a.example", "x"),
            flush_caches(&settings),
        ] {
            for command in commands.before.iter().chain([&commands.last]) {
                let end = &command.argv[command.argv.len() - 3..];
                assert_eq!(end, ["--require=/run/cdm/wp-cli.php", "--path=/srv/wordpress", "--allow-root"]);
            }
        }
    }

    #[test]
    fn an_installation_is_proved_by_address_and_administrator() {
        let site = Site { address: "https://a.example", title: "A", user: "admin", email: "a@example.com" };
        let commands = install(&settings(), &site);
        assert_eq!(commands.last.argv[..5], ["wp", "user", "get", "admin", "--field=roles"]);
        assert_eq!(
            commands.proofs,
            [
                (ADDRESS, "https://a.example".to_owned()),
                (MARKER, "complete".to_owned()),
                (PROVE, "administrator".to_owned())
            ]
        );
    }

    #[test]
    fn only_a_plain_password_is_written_to_the_file() {
        let text = install_configuration("-a_B9");
        assert_eq!(text.as_deref(), Some("core install:\n  admin_password: \"-a_B9\"\n"));
        for password in ["", "a\"b", "a\nb", "a b", "\u{e4}"] {
            assert_eq!(install_configuration(password), None, "{password}");
        }
    }
}
