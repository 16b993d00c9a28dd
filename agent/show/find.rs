//! Where an object is: in a folder, in a bucket, or on standard input.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use ringtap_batch::objects::digest;

use super::ShowError;
use crate::{
    cli::ShowArgs,
    config::{
        Config,
        checked::{ObjectStore, S3},
    },
    sink::s3::S3Store,
};

/// Digits of a digest.
const DIGITS: usize = 40;
/// Digits that are taken for the beginning of one.
const DIGITS_MIN: usize = 4;
/// Bytes of an object at most: two bodies of the largest size that is kept by default come to a few megabytes.
pub(crate) const OBJECT_MAX: u64 = 1 << 30;

/// Where objects lie.
#[derive(Debug)]
pub enum Place {
    /// A folder, in which an object is `<first two digits>/<digest>` or, as in a copy of a bucket, `<digest>`.
    Folder(PathBuf),
    /// A bucket.
    Bucket(Box<S3>),
}

impl Place {
    fn name(&self) -> String {
        match self {
            Self::Folder(folder) => folder.display().to_string(),
            Self::Bucket(s3) => format!("the bucket {} at {}", s3.bucket, s3.endpoint),
        }
    }
}

/// The stores of a configuration that can be read.
#[must_use]
pub fn places(config: &Config) -> Vec<Place> {
    let place = |store: &ObjectStore| match store {
        ObjectStore::Disk { path, .. } => Some(Place::Folder(path.clone())),
        ObjectStore::S3(s3) => Some(Place::Bucket(Box::new(s3.clone()))),
        ObjectStore::Disabled | ObjectStore::Stdout | ObjectStore::Otel(_) => None,
    };
    config.stores.objects.iter().filter_map(|(store, _)| place(store)).collect()
}

/// An object's bytes, which have its digest.
#[derive(Debug)]
pub(super) struct Loaded {
    pub digest: String,
    pub bytes: Vec<u8>,
}

/// An object that was found, and is read when it is its turn.
#[derive(Debug)]
pub(super) enum Wanted<'a> {
    Input,
    File(PathBuf),
    InBucket(&'a S3, String),
}

/// What the arguments ask for, in that order; the last ones from the oldest to the newest.
pub(super) fn find<'a>(arguments: &ShowArgs, places: &'a [Place]) -> Result<Vec<Wanted<'a>>, ShowError> {
    match arguments.last {
        Some(n) => last(n as usize, places),
        None => arguments.objects.iter().map(|name| one(name, places)).collect(),
    }
}

fn one<'a>(name: &str, places: &'a [Place]) -> Result<Wanted<'a>, ShowError> {
    if name == "-" {
        return Ok(Wanted::Input);
    }
    if name.contains('/') {
        return Ok(Wanted::File(PathBuf::from(name.strip_prefix("file://").unwrap_or(name))));
    }
    let digits = name.to_ascii_lowercase();
    if !(DIGITS_MIN..=DIGITS).contains(&digits.len()) || !is_hex(&digits) {
        return Err(ShowError::Usage(format!(
            "`{name}` is not a digest: {DIGITS_MIN} to {DIGITS} hexadecimal digits, or `-`, or the path of a file"
        )));
    }
    need_places(places)?;
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    for folder in folders(places) {
        for path in beginning_with(folder, &digits)? {
            found.entry(name_of(&path)).or_insert(path);
        }
    }
    if found.len() > 1 {
        return Err(ShowError::Ambiguous { prefix: digits, digests: found.into_keys().collect() });
    }
    if let Some(path) = found.into_values().next() {
        return Ok(Wanted::File(path));
    }
    let mut buckets = places.iter().filter_map(|place| match place {
        Place::Bucket(s3) => Some(&**s3),
        Place::Folder(_) => None,
    });
    let bucket = buckets.next();
    match bucket {
        Some(bucket) if digits.len() == DIGITS => Wanted::in_one_of(bucket, buckets, digits, places),
        _ => Err(ShowError::NotFound {
            digest: digits,
            places: names(places),
            hint: if bucket.is_some() {
                "; in a bucket an object is found by all 40 digits of its digest only"
            } else {
                ""
            },
        }),
    }
}

fn need_places(places: &[Place]) -> Result<(), ShowError> {
    if places.is_empty() {
        let why = "the configuration has no object store that can be read, of type `disk` or `s3`; name a folder with \
                   --from";
        return Err(ShowError::Usage(why.into()));
    }
    Ok(())
}

fn names(places: &[Place]) -> String {
    places.iter().map(Place::name).collect::<Vec<_>>().join(", ")
}

fn folders(places: &[Place]) -> impl Iterator<Item = &Path> {
    places.iter().filter_map(|place| match place {
        Place::Folder(folder) => Some(folder.as_path()),
        Place::Bucket(_) => None,
    })
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn is_digest(name: &str) -> bool {
    name.len() == DIGITS && is_hex(name)
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The objects of a folder whose digests begin like this.
fn beginning_with(folder: &Path, digits: &str) -> Result<Vec<PathBuf>, ShowError> {
    let within = folder.join(&digits[..2]);
    if digits.len() == DIGITS {
        return Ok([within.join(digits), folder.join(digits)].into_iter().filter(|path| path.is_file()).collect());
    }
    let mut found = objects_in(&within)?;
    found.extend(objects_in(folder)?);
    found.retain(|path| name_of(path).starts_with(digits));
    Ok(found)
}

/// The objects that lie right in a folder; none if there is no such folder.
fn objects_in(folder: &Path) -> Result<Vec<PathBuf>, ShowError> {
    let failed = |error| ShowError::Read { place: folder.display().to_string(), error };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let path = |entry: io::Result<fs::DirEntry>| entry.map(|entry| entry.path()).map_err(failed);
    let mut paths = entries.map(path).collect::<Result<Vec<_>, _>>()?;
    paths.retain(|path| is_digest(&name_of(path)));
    Ok(paths)
}

/// The objects that were stored last, as far as folders tell.
fn last(n: usize, places: &[Place]) -> Result<Vec<Wanted<'_>>, ShowError> {
    need_places(places)?;
    if folders(places).next().is_none() {
        let why = "a bucket does not tell its newest objects: --last works on folders; name a digest, as `artifact_record` \
                   events and rollups have it";
        return Err(ShowError::Usage(why.into()));
    }
    let mut newest: BinaryHeap<Reverse<(SystemTime, PathBuf)>> = BinaryHeap::new();
    for folder in folders(places) {
        let outer = (0..=0xff).map(|first| folder.join(format!("{first:02x}")));
        for folder in outer.chain([folder.to_owned()]) {
            for path in objects_in(&folder)? {
                // One that is gone by now is not among the last ones.
                let Ok(time) = fs::metadata(&path).and_then(|data| data.modified()) else { continue };
                newest.push(Reverse((time, path)));
                if newest.len() > n {
                    newest.pop();
                }
            }
        }
    }
    if newest.is_empty() {
        let hint = "; an agent stores them there as `http_capture` says";
        return Err(ShowError::NotFound { digest: "at all".into(), places: names(places), hint });
    }
    let mut newest: Vec<_> = newest.into_iter().map(|Reverse(one)| one).collect();
    newest.sort_unstable();
    Ok(newest.into_iter().map(|(_, path)| Wanted::File(path)).collect())
}

impl<'a> Wanted<'a> {
    /// The first bucket that has it; the last one is asked when it is loaded.
    fn in_one_of(
        first: &'a S3,
        more: impl Iterator<Item = &'a S3>,
        digest: String,
        places: &[Place],
    ) -> Result<Self, ShowError> {
        let buckets: Vec<&S3> = [first].into_iter().chain(more).collect();
        let [only] = buckets[..] else {
            for bucket in buckets {
                if get(bucket, &digest)?.is_some() {
                    return Ok(Self::InBucket(bucket, digest));
                }
            }
            return Err(ShowError::NotFound { digest, places: names(places), hint: "" });
        };
        Ok(Self::InBucket(only, digest))
    }

    /// Its bytes.
    ///
    /// # Errors
    ///
    /// They cannot be read, or are not those that its digest is made of.
    pub(super) fn load(&self) -> Result<Loaded, ShowError> {
        let (place, expected, bytes) = match self {
            Self::Input => ("standard input".to_owned(), None, read_whole(io::stdin().lock(), "standard input")?),
            Self::File(path) => {
                let place = path.display().to_string();
                let file = fs::File::open(path).map_err(|error| ShowError::Read { place: place.clone(), error })?;
                let bytes = read_whole(file, &place)?;
                (place, Some(name_of(path)).filter(|name| is_digest(name)), bytes)
            }
            Self::InBucket(s3, digest) => {
                let place = format!("the bucket {} at {}", s3.bucket, s3.endpoint);
                let Some(bytes) = get(s3, digest)? else {
                    return Err(ShowError::NotFound { digest: digest.clone(), places: place, hint: "" });
                };
                (place, Some(digest.clone()), bytes)
            }
        };
        let found = digest(&bytes);
        match expected {
            Some(digest) if digest != found => Err(ShowError::Damaged { place, digest, found }),
            _ => Ok(Loaded { digest: found, bytes }),
        }
    }
}

fn read_whole(from: impl Read, place: &str) -> Result<Vec<u8>, ShowError> {
    let failed = |error| ShowError::Read { place: place.to_owned(), error };
    let mut bytes = Vec::new();
    from.take(OBJECT_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > OBJECT_MAX {
        return Err(failed(io::Error::other("it is larger than any object")));
    }
    Ok(bytes)
}

fn get(s3: &S3, digest: &str) -> Result<Option<Vec<u8>>, ShowError> {
    let store = S3Store::new(s3.clone(), Arc::default())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| ShowError::Read { place: s3.endpoint.clone(), error })?;
    Ok(runtime.block_on(store.get(digest, OBJECT_MAX))?)
}
