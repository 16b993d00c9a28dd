//! Checks `services.rollups`.

use std::time::Duration;

use jiff::SignedDuration;

use super::Checker;
use crate::config::{
    checked::{ObjectStore, Rollups, parse_size},
    effective,
    written::{self, RollupLevel},
};

/// A file is no smaller, whatever is asked for: its footer alone has kilobytes.
const SIZE_MIN: usize = 64 << 10;
/// Files are no larger than one request to an object store can carry.
const SIZE_MAX: usize = 4 << 30;
/// As far as zstd's ordinary levels go.
const COMPRESSION_LEVELS: std::ops::RangeInclusive<i32> = 1..=19;

impl Checker<'_> {
    /// `stores` are the checked object stores, in order.
    pub(super) fn rollups(
        &mut self,
        services: &written::Services,
        stores: &[(ObjectStore, Option<usize>)],
    ) -> Option<Rollups> {
        let written = services.rollups.as_ref().filter(|rollups| rollups.enabled)?;
        let key = |name: &str| format!("services.rollups.{name}");
        let store = self.rollup_store(&key("object_store"), written, services, stores);
        for (name, is_set) in [("prefix", written.prefix.is_some()), ("max_waiting", written.max_waiting.is_some())] {
            if is_set && written.object_store.is_none() {
                self.warn(&key(name), "without an `object_store` this key has no effect");
            }
        }
        let retention = written.retention.as_deref().and_then(|text| self.duration(&key("retention"), text));
        if retention.is_some() && written.object_store.is_some() {
            self.refuse(
                &key("retention"),
                "files in an object store are deleted by a rule of its bucket, not by the agent",
            );
        }
        let prefix = written.prefix.as_deref().unwrap_or(effective::ROLLUP_PREFIX).trim_matches('/').to_owned();
        let compression_level = written.compression_level.unwrap_or(effective::ROLLUP_COMPRESSION);
        if !COMPRESSION_LEVELS.contains(&compression_level) {
            self.refuse(&key("compression_level"), format!("found {compression_level}; expected 1 to 19"));
        }
        let max_bytes = self.rollup_size(&key("max_bytes"), written.max_bytes.as_deref(), effective::ROLLUP_BYTES);
        if !(SIZE_MIN..=SIZE_MAX).contains(&max_bytes) {
            self.refuse(&key("max_bytes"), "expected 64kb to 4gb");
        }
        let max_waiting =
            self.rollup_size(&key("max_waiting"), written.max_waiting.as_deref(), effective::ROLLUP_WAITING);
        let max_age = written.max_age.as_deref().unwrap_or(effective::ROLLUP_AGE);
        let path = written.path.clone().unwrap_or_else(|| effective::ROLLUP_PATH.into());
        if path.as_os_str().is_empty() {
            self.refuse(&key("path"), "the path of a folder is missing");
        }
        Some(Rollups {
            path,
            is_default_path: written.path.is_none(),
            store,
            prefix,
            max_bytes: max_bytes as u64,
            max_age: self.duration(&key("max_age"), max_age).unwrap_or_default(),
            headers: written.level == RollupLevel::Headers,
            compression_level,
            retention,
            max_waiting: max_waiting as u64,
        })
    }

    fn rollup_store(
        &mut self,
        path: &str,
        written: &written::Rollups,
        services: &written::Services,
        stores: &[(ObjectStore, Option<usize>)],
    ) -> Option<crate::config::checked::S3> {
        let to = written.object_store.as_ref().filter(|to| !to.disabled)?;
        let ids: Vec<Option<&str>> = services.object_stores.iter().map(|store| store.id.as_deref()).collect();
        let place = match to.id.as_deref() {
            None => (!stores.is_empty()).then_some(0),
            Some(id) => ids.iter().position(|known| *known == Some(id)),
        };
        let Some((place, (store, _))) = place.and_then(|place| Some((place, stores.get(place)?))) else {
            let known: Vec<&str> = ids.iter().flatten().copied().collect();
            self.refuse(
                &format!("{path}.id"),
                format!("no object store has this id (there are: {})", known.join(", ")),
            );
            return None;
        };
        match store {
            ObjectStore::S3(s3) => Some(s3.clone()),
            // What is wrong with it was said where it stands.
            _ if services.object_stores[place].kind == written::ObjectStoreKind::S3 => None,
            other => {
                let message =
                    format!("rollups go to a folder (`path`) or to an `s3` store; this one is `{}`", other.kind());
                self.refuse(path, message);
                None
            }
        }
    }

    fn rollup_size(&mut self, path: &str, text: Option<&str>, default: &str) -> usize {
        parse_size(text.unwrap_or(default)).unwrap_or_else(|message| {
            self.refuse(path, message);
            SIZE_MIN
        })
    }

    /// More than nothing; days as well, which the friendly format leaves to calendars.
    fn duration(&mut self, path: &str, text: &str) -> Option<Duration> {
        let days = text.trim().strip_suffix('d').and_then(|days| days.trim().parse::<u32>().ok());
        let duration = match days {
            Some(days) => Some(Duration::from_secs(u64::from(days) * 86_400)),
            None => text.parse::<SignedDuration>().ok().and_then(|duration| Duration::try_from(duration).ok()),
        };
        let duration = duration.filter(|duration| !duration.is_zero());
        if duration.is_none() {
            self.refuse(path, format!("found `{text}`; expected a duration such as 90s, 5m or 30d"));
        }
        duration
    }
}
