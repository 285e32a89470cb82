//! `media-assets jellyfin` over HTTPS.

use media_assets_tests::authority::Authority;
use media_assets_tests::each_server;
use media_assets_tests::jellyfin::{client, ended};
use media_assets_tests::relay::{enrich, honest, published_board, with};
use media_assets_tests::stub::Stub;

#[test]
fn a_certificate_is_taken_from_whom_the_user_trusts() {
    each_server(|server| {
        let (database, mut session) = published_board(server, 3);
        let (trusted, other) = (Authority::new(), Authority::new());
        let stub = Stub::start_tls(&trusted, honest);
        let run = |arguments: &[&str], variables: &[(&str, &str)]| {
            let mut call = client(&database, &stub.base(), &with(arguments[0], &arguments[1..]));
            call.envs(variables.iter().copied());
            ended(call.output().expect("the client starts"))
        };
        let file = trusted.file.to_str().expect("a path of letters");
        let stranger = other.file.to_str().expect("a path of letters");
        // neither the system nor another authority knows this one
        for (arguments, variables) in [
            (vec!["fetch"], vec![]),
            (vec!["fetch", "--ca-file", stranger], vec![]),
            (vec!["fetch", "--ca-file", stranger], vec![("SSL_CERT_FILE", file)]),
        ] {
            let refused = run(&arguments, &variables);
            assert_eq!(refused.code, Some(3), "{}", refused.text);
            assert!(refused.text.contains("--ca-file"), "{}", refused.text);
        }
        assert_eq!(stub.count(), 0);
        assert_eq!(session.number("SELECT count(*) FROM jellyfin_items"), 0);
        for bad in ["/nowhere/ca.pem", "/dev/null"] {
            let refused = run(&["fetch", "--ca-file", bad], &[]);
            assert_eq!(refused.code, Some(1), "{}", refused.text);
            assert!(refused.text.contains("is no file of certificates"), "{}", refused.text);
        }

        let fetched = run(&["fetch", "--ca-file", file], &[]);
        assert_eq!(fetched.code, Some(0), "{}", fetched.text);
        enrich(&mut session);
        // an event is not to blame for a certificate
        assert_eq!(run(&["publish"], &[]).code, Some(3));
        assert!(session.is_true(
            "SELECT count(*) = 3 AND bool_and(attempts = 0 AND claimed_by IS NULL AND next_attempt_at <= clock_timestamp()) FROM event_outbox"
        ));
        for (limit, variable) in [("1", "MEDIA_ASSETS_CA_FILE"), ("9", "SSL_CERT_FILE")] {
            let published = run(&["publish", "--limit", limit], &[(variable, file)]);
            assert_eq!(published.code, Some(0), "{variable}: {}", published.text);
        }
        assert_eq!(
            session.number("SELECT count(*) FROM event_outbox WHERE state = 'published'"),
            3
        );
        // a name that is not in the certificate
        let elsewhere = stub.base().replace("127.0.0.1", "localhost");
        session.run("TRUNCATE jellyfin_items; UPDATE studio_board SET meta = '{\"jellyfin_item_id\": \"i1\"}'");
        let mut call = client(&database, &elsewhere, &with("fetch", &["--ca-file", file]));
        let refused = ended(call.output().expect("the client starts"));
        assert_eq!(refused.code, Some(3), "{}", refused.text);
    });
}
