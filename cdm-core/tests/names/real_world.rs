//! Real-world input: theme directories, image references, hostnames and titles of existing sites, each accepted, or
//! rejected with the rule that it violates.

use cdm_core::domain::{Digest, Hostname, ImageError, SiteName, Theme};

/// Theme directories from WordPress.org, ThemeForest and GitHub, and from inspected sites.
#[test]
fn theme_directories() {
    let accepted = [
        "2.0.0",
        "2010-weaver",
        "Astra-Child",
        "Extra",
        "FoundationPress",
        "Impreza",
        "JointsWP",
        "JointsWP-CSS-master",
        "Newsmag",
        "Newspaper",
        "Total",
        "WP-Forge",
        "Zephyr",
        "_23c",
        "_brightwheel",
        "_for_plugins",
        "_mn2018",
        "_s-master",
        "_themename",
        "astra",
        "betheme",
        "blocksy",
        "dt-the7",
        "enfold",
        "flatsome",
        "generatepress",
        "genesis-sample",
        "hello-elementor",
        "html5blank-stable",
        "jupiterx",
        "kadence",
        "oceanwp",
        "p2",
        "twentytwentyfive",
        "understrap-child",
        "wporg-main-2022",
        "x",
    ];
    let refused = [
        // WordPress.com stores its themes in subfolders.
        ("pub/twentyseventeen", "named like its directory"),
        ("Divi Child Theme", "named like its directory"),
        (".DS_Store", "must begin with a letter, a digit or an underscore"),
        ("Avada.zip?dl=1", "named like its directory"),
    ];
    for text in accepted {
        assert_eq!(Theme::parse(text).as_ref().map(Theme::as_str), Ok(text));
    }
    for (text, rule) in refused {
        let error = Theme::parse(text).expect_err(text);
        assert!(error.rule().contains(rule), "{error}");
    }
    assert!(accepted.len() + refused.len() >= 40);
}

const HEX: &str = "1d1b2c2e6a6c4c9c6ddf6bd7d4b2a5d2ad3a8f3e3f1c4c9d9a8b7c6d5e4f3a2b";

/// The result of parsing an image reference.
#[derive(Debug, PartialEq)]
enum ParseResult {
    Accepted,
    Tag,
    OtherRepository,
    NoDigest,
    Malformed,
}

/// References as registries, `docker images --digests`, Kubernetes and continuous integration print them.
#[test]
fn image_references() {
    use ParseResult::{Accepted, Malformed, NoDigest, OtherRepository, Tag};
    let table: &[(Option<&str>, &str, ParseResult)] = &[
        (Some("docker.io/library/wordpress"), "docker.io/library/wordpress@sha256:HEX", Accepted),
        (
            Some("docker.io/library/wordpress"),
            "docker.io/library/wordpress:6.8.1-php8.3-apache@sha256:HEX",
            Accepted,
        ),
        (Some("docker.io/library/wordpress"), "wordpress@sha256:HEX", OtherRepository),
        (Some("wordpress"), "wordpress:latest@sha256:HEX", Accepted),
        (Some("ghcr.io/roots/bedrock"), "ghcr.io/roots/bedrock:sha-1f2e3d4@sha256:HEX", Accepted),
        (Some("quay.io/bitnami/wordpress"), "quay.io/bitnami/wordpress@sha256:HEX", Accepted),
        (Some("quay.io/bitnami/wordpress"), "docker.io/bitnami/wordpress@sha256:HEX", OtherRepository),
        (
            Some("123456789012.dkr.ecr.eu-central-1.amazonaws.com/wp"),
            "123456789012.dkr.ecr.eu-central-1.amazonaws.com/wp@sha256:HEX",
            Accepted,
        ),
        (
            Some("123456789012.dkr.ecr.eu-central-1.amazonaws.com/wp"),
            "123456789012.dkr.ecr.us-east-1.amazonaws.com/wp@sha256:HEX",
            OtherRepository,
        ),
        (
            Some("public.ecr.aws/docker/library/wordpress"),
            "public.ecr.aws/docker/library/wordpress:6@sha256:HEX",
            Accepted,
        ),
        (
            Some("europe-docker.pkg.dev/shop-prod/web/wp"),
            "europe-docker.pkg.dev/shop-prod/web/wp@sha256:HEX",
            Accepted,
        ),
        (Some("gcr.io/shop-prod/wp"), "gcr.io/shop-prod/wp:v1.2.3@sha256:HEX", Accepted),
        (
            Some("registry.gitlab.com/group/sub/wp"),
            "registry.gitlab.com/group/sub/wp/main@sha256:HEX",
            OtherRepository,
        ),
        (
            Some("registry.gitlab.com/group/sub/wp"),
            "registry.gitlab.com/group/sub/wp:main@sha256:HEX",
            Accepted,
        ),
        (Some("localhost:5000/wp"), "localhost:5000/wp@sha256:HEX", Accepted),
        (Some("localhost:5000/wp"), "localhost:5000/wp:dev@sha256:HEX", Accepted),
        (Some("localhost:5000/wp"), "localhost/wp@sha256:HEX", OtherRepository),
        (Some("harbor.internal:8443/web/wp"), "harbor.internal:8443/web/wp@sha256:HEX", Accepted),
        (Some("mcr.microsoft.com/appsvc/wordpress"), ":8.3@sha256:HEX", Accepted),
        (Some("wordpress"), "sha256:HEX", Accepted),
        (Some("wordpress"), "HEX", Accepted),
        (None, "wordpress:6.8@sha256:HEX", Accepted),
        (Some("wordpress"), "wordpress:6.8", Tag),
        (Some("wordpress"), "wordpress", Tag),
        (None, "latest", Tag),
        (None, "6.8.1-php8.3-fpm-alpine", Tag),
        (None, "localhost:5000/wp:dev", Tag),
        (None, "registry.gitlab.com/group/sub/wp/main:9f86d081", Tag),
        (Some("wordpress"), "wordpress@sha512:HEX", NoDigest),
        (Some("wordpress"), "wordpress@sha256:1d1b2c2e6a6c", NoDigest),
        (Some("wordpress"), "sha256:1d1b2c2e6a6c", NoDigest),
        (None, "word press@sha256:HEX", Malformed),
        (Some("wordpress"), "docker-pullable://wordpress", Tag),
    ];
    assert!(table.len() >= 30);
    let digest = Digest::parse(HEX).expect("a digest");
    for (configured, text, expected) in table {
        let text = text.replace("HEX", HEX);
        let result = match Digest::of_image(&text, *configured) {
            Ok(found) => {
                assert_eq!(found, digest, "{text}");
                Accepted
            }
            Err(error) => {
                let message = error.to_string();
                match error {
                    ImageError::Tag => Tag,
                    ImageError::Repository { configured, .. } => {
                        assert!(message.contains(&format!("deploys only from `{configured}`")), "{message}");
                        OtherRepository
                    }
                    ImageError::Digest(broken) if broken.rule().contains("64 hexadecimal digits") => NoDigest,
                    ImageError::Digest(broken) => {
                        assert!(broken.rule().contains("before the `@`"), "{message}");
                        Malformed
                    }
                }
            }
        };
        assert_eq!(result, *expected, "{text}, where {configured:?} is configured");
    }
}

/// Hostnames in use, and typical wrong input for a hostname.
#[test]
fn hostnames() {
    let accepted = [
        ("en.wikipedia.org", "en.wikipedia.org"),
        ("EN.Wikipedia.ORG.", "en.wikipedia.org"),
        ("r1---sn-4g5ednsl.googlevideo.com", "r1---sn-4g5ednsl.googlevideo.com"),
        ("main--blog--adobe.aem.page", "main--blog--adobe.aem.page"),
        ("deploy-preview-42--docs.netlify.app", "deploy-preview-42--docs.netlify.app"),
        ("pr--12.up.railway.app", "pr--12.up.railway.app"),
        ("d111111abcdef8.cloudfront.net", "d111111abcdef8.cloudfront.net"),
        ("ec2-203-0-113-25.compute-1.amazonaws.com", "ec2-203-0-113-25.compute-1.amazonaws.com"),
        ("1-800-flowers.com", "1-800-flowers.com"),
        ("123-reg.co.uk", "123-reg.co.uk"),
        ("3m.com", "3m.com"),
        ("t.co", "t.co"),
        ("host.docker.internal", "host.docker.internal"),
        ("wordpress.default.svc.cluster.local", "wordpress.default.svc.cluster.local"),
        ("0.pool.ntp.org", "0.pool.ntp.org"),
        ("bücher.ch", "xn--bcher-kva.ch"),
        ("www.straße.de", "www.xn--strae-oqa.de"),
        ("xn--e1afmkfd.xn--p1ai", "xn--e1afmkfd.xn--p1ai"),
        ("пример.рф", "xn--e1afmkfd.xn--p1ai"),
        ("президент.рф", "xn--d1abbgf6aiiy.xn--p1ai"),
        ("例え.jp", "xn--r8jz45g.jp"),
        ("日本語.jp", "xn--wgv71a119e.jp"),
        ("中国移动.中国", "xn--fiq02ib9d179b.xn--fiqs8s"),
        ("한국.한국", "xn--3e0b707e.xn--3e0b707e"),
        ("παράδειγμα.ελ", "xn--hxajbheg2az3al.xn--qxam"),
        ("مثال.مصر", "xn--mgbh0fb.xn--wgbh1c"),
        ("דוגמה.ישראל", "xn--6dbbec0c.xn--4dbrk0ce"),
        ("उदाहरण.भारत", "xn--p1b6ci4b4b3a.xn--h2brj9c"),
        ("ตัวอย่าง.ไทย", "xn--72c1a1bt4awk9o.xn--o3cw4h"),
    ];
    let refused = [
        ("https://wordpress.com", "must not have a scheme"),
        ("http://www.heise.de/news/", "must not have a scheme"),
        ("www.spiegel.de/", "must not have a path"),
        ("wordpress.org/plugins", "must not have a path"),
        ("news.ycombinator.com:443", "must not have a port"),
        ("*.github.io", "must not be a wildcard"),
        ("_dmarc.google.com", "only letters, digits, hyphens and dots"),
        ("my_shop.myshopify.com", "only letters, digits, hyphens and dots"),
        ("webmaster@php.net", "only letters, digits, hyphens and dots"),
        ("-foo.tumblr.com", "must neither begin nor end with a hyphen"),
        ("203.0.113.25", "must not be an IP address"),
        ("[2001:db8::25]", "must not be an IP address"),
        ("localhost", "at least two labels"),
        ("xn--a.de", "valid in IDNA"),
    ];
    for (text, canonical) in accepted {
        assert_eq!(Hostname::parse(text).as_ref().map(Hostname::as_str), Ok(canonical), "{text}");
    }
    for (text, rule) in refused {
        let error = Hostname::parse(text).expect_err(text);
        assert!(error.rule().contains(rule), "{text}: {error}");
        assert_eq!(error.value(), text);
    }
    assert!(accepted.len() + refused.len() >= 40);
}

/// Site titles in many scripts.
#[test]
fn site_titles() {
    let accepted = [
        "Le Monde diplomatique",
        "« Libération »",
        "Soldes\u{202f}: jusqu\u{2019}à −50\u{a0}%\u{202f}!",
        "Süddeutsche Zeitung – Nachrichten",
        "El País: el periódico global",
        "Gazeta.pl • Wiadomości",
        "Türkiye İş Bankası",
        "Tiếng Việt hôm nay",
        "Газета «Ведомости»",
        "Українська правда",
        "Καθημερινή",
        "הארץ – חדשות",
        "الجزيرة نت",
        "روزنامهٔ اطّلاعات",
        "خبرگزاری دانش\u{200c}آموزان",
        "کتاب\u{200c}های PDF\u{200c}ای",
        "اردو پوائنٹ",
        "दैनिक भास्कर",
        "क्\u{200d}षेत्रीय समाचार",
        "র\u{200d}্যাব সংবাদ",
        "ශ්\u{200d}රී ලංකා",
        "മലയാള മനോരമ\u{a0}ഓൺലൈൻ",
        "தினத்தந்தி",
        "ไทยรัฐออนไลน์",
        "ភ្នំពេញ\u{200c}ប៉ុស្តិ៍",
        "朝日新聞デジタル",
        "人民网_网上的人民日报",
        "조선일보 – 1등 디지털뉴스",
        "Team 👩\u{200d}💻 & 👨🏽\u{200d}🚀",
        "Pride 🏳\u{fe0f}\u{200d}🌈 2026",
    ];
    let refused = [
        ("\u{202b}أخبار\u{202c}", "no control, direction"),
        ("حساب\u{200f}", "no control, direction"),
        ("Breaking\tNews", "no control, direction"),
        ("\u{feff}Blog", "no control, direction"),
        ("Shop\u{200b}", "no control, direction"),
        ("Ad\u{200d}min", "a joiner"),
        (" Blog", "must neither begin nor end with white space"),
        ("Blog\u{a0}", "must neither begin nor end with white space"),
    ];
    for text in accepted {
        assert_eq!(SiteName::parse(text).as_ref().map(SiteName::as_str), Ok(text));
    }
    for (text, rule) in refused {
        let error = SiteName::parse(text).expect_err(text);
        assert!(error.rule().contains(rule), "{text:?}: {error}");
    }
    assert!(accepted.len() + refused.len() >= 30);
}
