//! An object into the bucket, in one request or in parts, and only if it is not there yet.

use std::sync::atomic::{AtomicBool, Ordering};

use aws_sdk_s3::{
    Client,
    primitives::ByteStream,
    types::{CompletedMultipartUpload, CompletedPart, ServerSideEncryption, StorageClass},
};
use bytes::Bytes;
use tokio::task::JoinSet;

use super::{connection::timeout, failure::Failure};
use crate::config::checked::{Encryption, S3};

/// What is larger goes in parts.
const WHOLE_MAX: usize = 16 << 20;
/// Bytes of a part; the least that services take is 5 MiB, and they take 10,000 of them.
const PART: usize = 8 << 20;
/// Parts of one object on their way at most.
const PARTS_AT_ONCE: usize = 4;
/// What is smaller is sent in the time that every request has.
const QUICK: usize = 256 << 10;
/// Any object of that name.
const ANY: &str = "*";

/// What is stored, and under which key.
pub(super) struct Object<'a> {
    pub key: String,
    pub content_type: &'a str,
    pub data: Bytes,
}

/// Whether the service knows conditions. Some ignore them, which is all the same; some refuse them.
#[derive(Default)]
pub(super) struct Conditions {
    unknown: AtomicBool,
}

impl Conditions {
    /// Asks by the condition that no such object is there; false: there is one. If that was refused, and goes without,
    /// it is left out from then on.
    async fn unless_there<F>(&self, request: impl Fn(Option<String>) -> F) -> Result<bool, Failure>
    where
        F: Future<Output = Result<(), Failure>>,
    {
        if self.unknown.load(Ordering::Relaxed) {
            return request(None).await.map(|()| true);
        }
        match request(Some(ANY.into())).await {
            Ok(()) => Ok(true),
            Err(failure) if failure.is_there() => Ok(false),
            Err(failure) if failure.may_be_the_condition() => {
                request(None).await?;
                tracing::info!("s3: the service does not know `If-None-Match`, and is not asked by it any more");
                self.unknown.store(true, Ordering::Relaxed);
                Ok(true)
            }
            Err(failure) => Err(failure),
        }
    }
}

/// Stores an object; false: it was there.
pub(super) async fn put(
    client: &Client,
    config: &S3,
    conditions: &Conditions,
    object: &Object<'_>,
) -> Result<bool, Failure> {
    if object.data.len() > WHOLE_MAX {
        match in_parts(client, config, conditions, object).await {
            // Every service takes an object whole, if not as fast.
            Err(failure) if failure.is_about_parts() => tracing::debug!(%failure.error, "an object goes in one piece"),
            done => return done,
        }
    }
    conditions.unless_there(|condition| whole(client, config, condition, object)).await
}

async fn whole(client: &Client, config: &S3, condition: Option<String>, object: &Object<'_>) -> Result<(), Failure> {
    let (encryption, kms_key) = encryption(config);
    let put = client
        .put_object()
        .bucket(&config.bucket)
        .key(&object.key)
        .content_type(object.content_type)
        .set_storage_class(config.storage_class.as_deref().map(StorageClass::from))
        .set_server_side_encryption(encryption)
        .set_ssekms_key_id(kms_key)
        .set_if_none_match(condition)
        .body(ByteStream::from(object.data.clone()));
    let sent = match object.data.len() {
        size if size > QUICK => put.customize().config_override(patience(size)).send().await,
        _ => put.send().await,
    };
    sent.map(drop).map_err(|error| Failure::of(&error, config))
}

fn patience(size: usize) -> aws_sdk_s3::config::Builder {
    aws_sdk_s3::Config::builder().timeout_config(timeout(size))
}

pub(super) fn encryption(config: &S3) -> (Option<ServerSideEncryption>, Option<String>) {
    match &config.encryption {
        None => (None, None),
        Some(Encryption::Aes256) => (Some(ServerSideEncryption::Aes256), None),
        Some(Encryption::Kms(key)) => (Some(ServerSideEncryption::AwsKms), key.clone()),
    }
}

/// The same in parts. What was begun and failed is taken back; where that fails as well, it is the bucket's rules that
/// end it.
async fn in_parts(client: &Client, config: &S3, conditions: &Conditions, object: &Object<'_>) -> Result<bool, Failure> {
    let (encryption, kms_key) = encryption(config);
    let begun = client
        .create_multipart_upload()
        .bucket(&config.bucket)
        .key(&object.key)
        .content_type(object.content_type)
        .set_storage_class(config.storage_class.as_deref().map(StorageClass::from))
        .set_server_side_encryption(encryption)
        .set_ssekms_key_id(kms_key)
        .send()
        .await
        .map_err(|error| Failure::of(&error, config).in_parts())?;
    let upload = Upload { client, config, key: &object.key, id: begun.upload_id().unwrap_or_default() };
    let done = match upload.parts(&object.data).await {
        Ok(parts) => conditions.unless_there(|condition| upload.complete(condition, parts.clone())).await,
        Err(failure) => Err(failure),
    };
    if !matches!(done, Ok(true)) {
        upload.abort().await;
    }
    done
}

struct Upload<'a> {
    client: &'a Client,
    config: &'a S3,
    key: &'a str,
    id: &'a str,
}

impl Upload<'_> {
    async fn parts(&self, data: &Bytes) -> Result<Vec<CompletedPart>, Failure> {
        let mut pieces = (1..).zip((0..data.len()).step_by(PART).map(|at| data.slice(at..data.len().min(at + PART))));
        let (mut sending, mut parts) = (JoinSet::new(), Vec::new());
        loop {
            while sending.len() < PARTS_AT_ONCE
                && let Some((number, piece)) = pieces.next()
            {
                let size = piece.len();
                let part = self.client.upload_part().bucket(&self.config.bucket).key(self.key).upload_id(self.id);
                let part = part.part_number(number).body(ByteStream::from(piece)).customize();
                // They share the way.
                let part = part.config_override(patience(size * PARTS_AT_ONCE));
                sending.spawn(async move { (number, part.send().await) });
            }
            let Some(sent) = sending.join_next().await else { break };
            let Ok((number, sent)) = sent else { continue };
            let tag = sent.map_err(|error| Failure::of(&error, self.config))?.e_tag;
            parts.push(CompletedPart::builder().part_number(number).set_e_tag(tag).build());
        }
        parts.sort_unstable_by_key(CompletedPart::part_number);
        Ok(parts)
    }

    async fn complete(&self, condition: Option<String>, parts: Vec<CompletedPart>) -> Result<(), Failure> {
        let all = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        self.client
            .complete_multipart_upload()
            .bucket(&self.config.bucket)
            .key(self.key)
            .upload_id(self.id)
            .set_if_none_match(condition)
            .multipart_upload(all)
            .customize()
            // Some put the parts together before they answer.
            .config_override(patience(WHOLE_MAX))
            .send()
            .await
            .map(drop)
            .map_err(|error| Failure::of(&error, self.config))
    }

    async fn abort(&self) {
        let abort = self.client.abort_multipart_upload().bucket(&self.config.bucket).key(self.key);
        if let Err(error) = abort.upload_id(self.id).send().await {
            let error = Failure::of(&error, self.config).error;
            tracing::debug!(%error, "an upload in parts that failed cannot be taken back");
        }
    }
}
