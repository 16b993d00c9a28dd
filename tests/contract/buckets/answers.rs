//! What is made of what a service says.

use std::time::Duration;

use anyhow::ensure;
use ringtap::config::checked::{Encryption, S3};

use super::{Client, Service, bucket, error};
use crate::programs::free_port;

#[test]
fn errors_say_what_to_mend() -> anyhow::Result<()> {
    // What is said, and whether the object can be taken later.
    for (head, code, later, expected) in [
        (
            "404 Not Found",
            "NoSuchBucket",
            true,
            "has no bucket `captures` (status 404, NoSuchBucket: NoSuchBucket it is)",
        ),
        ("403 Forbidden", "AccessDenied", true, "not allowed to write into the bucket `captures`"),
        ("403 Forbidden", "SignatureDoesNotMatch", true, "the secret key is not that of the access key"),
        ("403 Forbidden", "InvalidAccessKeyId", true, "does not know the access key"),
        ("400 Bad Request", "ExpiredToken", true, "the session token is not valid any more"),
        (
            "403 Forbidden\r\nDate: Thu, 01 Jan 2015 00:00:00 GMT",
            "RequestTimeTooSkewed",
            true,
            "which says Thu, 01 Jan 2015",
        ),
        ("301 Moved\r\nx-amz-bucket-region: eu-north-1", "PermanentRedirect", true, "but in eu-north-1"),
        (
            "400 Bad Request\r\nx-amz-bucket-region: eu-north-1",
            "AuthorizationHeaderMalformed",
            true,
            "but in eu-north-1",
        ),
        ("503 Slow Down\r\nRetry-After: 7", "SlowDown", true, "has too much to do"),
        ("429 Too Many", "TooManyRequests", true, "has too much to do"),
        ("500 Oh", "InternalError", true, "status 500, InternalError"),
        ("409 Conflict", "ConditionalRequestConflict", true, "ConditionalRequestConflict"),
        ("400 Bad Request", "InvalidStorageClass", true, "InvalidStorageClass"),
        ("400 Bad Request", "KMS.DisabledException", true, "the key of server_side_encryption"),
        ("501 Not Implemented", "NotImplemented", true, "cannot do what storage_class"),
        ("400 Bad Request", "EntityTooLarge", false, "EntityTooLarge"),
        ("400 Bad Request", "InvalidArgument", false, "InvalidArgument"),
        ("413 Too Large", "", false, "larger than the service takes (status 413)"),
    ] {
        let body = if code.is_empty() { String::new() } else { error(code) };
        let service = Service::start(move |_| (head.to_owned(), body.clone()))?;
        let (is_later, reason, after) = Client::new(bucket(service.port))?.refusal(b"x")?;
        ensure!(is_later == later && reason.contains(expected), "{head} {code}: {is_later} {reason}");
        ensure!(after == head.contains("Retry-After").then_some(Duration::from_secs(7)), "{head}: {after:?}");
    }
    let nobody = free_port()?;
    let (later, reason, _) = Client::new(bucket(nobody))?.refusal(b"x")?;
    ensure!(later && reason.contains(&format!("cannot reach 127.0.0.1:{nobody}")), "{reason}");
    ensure!(reason.to_lowercase().contains("refused"), "{reason}");
    Ok(())
}

#[test]
fn a_condition_that_is_refused_is_left_out() -> anyhow::Result<()> {
    for (refusal, code) in [("501 Not Implemented", "NotImplemented"), ("400 Bad Request", "InvalidArgument")] {
        let service = Service::start(move |request| match request.header("if-none-match") {
            Some(_) => (refusal.to_owned(), error(code)),
            None => ("200 OK\r\nETag: \"e\"".to_owned(), String::new()),
        })?;
        let client = Client::new(bucket(service.port))?;
        client.put(b"a")?;
        client.put(b"b")?;
        let requests = service.requests();
        let asked: Vec<bool> = requests.iter().map(|request| request.header("if-none-match").is_some()).collect();
        ensure!(asked == [true, false, false], "{asked:?}");
    }
    Ok(())
}

#[test]
fn what_is_there_is_not_sent_twice() -> anyhow::Result<()> {
    let service = Service::start(|_| ("412 Precondition Failed".to_owned(), error("PreconditionFailed")))?;
    let client = Client::new(bucket(service.port))?;
    client.put(b"a")?;
    client.put(b"a")?;
    ensure!(service.requests().len() == 1 && client.unchanged() == 2, "{:?}", service.requests());
    Ok(())
}

#[test]
fn wishes_stand_in_the_request() -> anyhow::Result<()> {
    let service = Service::start(|_| ("200 OK\r\nETag: \"e\"".to_owned(), String::new()))?;
    let config = S3 {
        storage_class: Some("STANDARD_IA".into()),
        encryption: Some(Encryption::Kms(Some("alias/capture".into()))),
        access_url: "{{SCHEME}}:{{BUCKET}}:{{DIGEST}}:{{KEY}}:{{OTHER}}".into(),
        prefix: "p-".into(),
        ..bucket(service.port)
    };
    let (digest, url) = Client::new(config)?.put(b"a")?;
    ensure!(url == format!("http:captures:{digest}:p-{digest}:{{{{OTHER}}}}"), "{url}");
    let request = &service.requests()[0];
    ensure!(request.head.starts_with(&format!("PUT /captures/p-{digest}?x-id=PutObject ")), "{}", request.head);
    for (name, value) in [
        ("x-amz-storage-class", "STANDARD_IA"),
        ("x-amz-server-side-encryption", "aws:kms"),
        ("x-amz-server-side-encryption-aws-kms-key-id", "alias/capture"),
        ("if-none-match", "*"),
        ("content-type", "application/json"),
    ] {
        ensure!(request.header(name) == Some(value), "{name}: {}", request.head);
    }
    // Where more is asked for than to keep the bytes, that may be what is refused: it can be mended.
    let strict = Service::start(|_| ("400 Bad Request".to_owned(), error("InvalidRequest")))?;
    let (later, reason, _) =
        Client::new(S3 { encryption: Some(Encryption::Aes256), ..bucket(strict.port) })?.refusal(b"a")?;
    ensure!(later && reason.contains("cannot do what storage_class or server_side_encryption"), "{reason}");
    // Nothing that older servers do not know.
    ensure!(!request.head.to_lowercase().contains("checksum"), "{}", request.head);
    // Without wishes there are none.
    let plain = Service::start(|_| ("200 OK\r\nETag: \"e\"".to_owned(), String::new()))?;
    Client::new(bucket(plain.port))?.put(b"a")?;
    let head = plain.requests()[0].head.to_lowercase();
    ensure!(!head.contains("storage-class") && !head.contains("server-side"), "{head}");
    Ok(())
}

/// What was begun and cannot be ended is taken back.
#[test]
fn parts_that_fail_are_taken_back() -> anyhow::Result<()> {
    let service = Service::start(|request| {
        let line = request.head.lines().next().unwrap_or_default();
        if line.contains("uploads") {
            let body = "<InitiateMultipartUploadResult><Bucket>captures</Bucket><Key>k</Key><UploadId>u1</UploadId></InitiateMultipartUploadResult>";
            ("200 OK".to_owned(), body.to_owned())
        } else if line.starts_with("DELETE") {
            ("204 No Content".to_owned(), String::new())
        } else if line.contains("partNumber=2") {
            ("503 Slow Down".to_owned(), error("SlowDown"))
        } else {
            ("200 OK\r\nETag: \"e\"".to_owned(), String::new())
        }
    })?;
    let (later, reason, _) = Client::new(bucket(service.port))?.refusal(&vec![b'x'; 17 << 20])?;
    ensure!(later && reason.contains("too much to do"), "{reason}");
    let heads: Vec<String> =
        service.requests().iter().map(|r| r.head.lines().next().unwrap_or_default().into()).collect();
    ensure!(heads.iter().any(|head| head.starts_with("DELETE") && head.contains("uploadId=u1")), "{heads:?}");
    ensure!(!heads.iter().any(|head| head.starts_with("POST") && head.contains("uploadId")), "{heads:?}");
    Ok(())
}
