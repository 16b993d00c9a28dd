//! Checks the stores, and the references to them.

use tonic::codegen::http::Uri;

use super::Checker;
use crate::config::{
    checked::{Axiom, EventStore, ObjectStore, Otel, Route},
    effective,
    template::from_environment,
    written::{self, EventStoreKind, ObjectStoreKind, StoreRef, ValueSource},
};

impl Checker<'_> {
    pub(super) fn event_stores(&mut self, stores: &[written::EventStore]) -> Vec<EventStore> {
        let ids = stores.iter().map(|store| store.id.as_deref());
        self.warn_twice("services.event_stores", ids);
        let stores = stores.iter().enumerate();
        stores.map(|(i, store)| self.event_store(&format!("services.event_stores[{i}]"), store)).collect()
    }

    pub(super) fn object_stores(&mut self, services: &written::Services) -> Vec<(ObjectStore, Route)> {
        let ids = services.object_stores.iter().map(|store| store.id.as_deref());
        self.warn_twice("services.object_stores", ids);
        let mut checked = Vec::new();
        for (i, store) in services.object_stores.iter().enumerate() {
            let path = format!("services.object_stores[{i}]");
            let default = StoreRef::default();
            let reference = store.event_store.as_ref().unwrap_or(&default);
            let records = self.event_route(&format!("{path}.event_store"), reference, &services.event_stores);
            checked.push((self.object_store(&path, store).unwrap_or(ObjectStore::Disabled), records));
        }
        checked
    }

    fn warn_twice<'s>(&mut self, path: &str, ids: impl Iterator<Item = Option<&'s str>>) {
        let mut seen: Vec<&str> = Vec::new();
        for (i, id) in ids.enumerate().filter_map(|(i, id)| Some((i, id?))) {
            if seen.contains(&id) {
                self.warn(
                    &format!("{path}[{i}].id"),
                    format!("another store has the id `{id}`; the first one is meant by it"),
                );
            }
            seen.push(id);
        }
    }

    /// The store that a reference means; one that is not there is the default, as if it had not been named.
    pub(super) fn event_route(&mut self, path: &str, to: &StoreRef, stores: &[written::EventStore]) -> Route {
        self.route(path, to, stores.iter().map(|store| store.id.as_deref()))
    }

    /// The same for objects.
    pub(super) fn object_route(&mut self, path: &str, to: &StoreRef, stores: &[written::ObjectStore]) -> Route {
        self.route(path, to, stores.iter().map(|store| store.id.as_deref()))
    }

    fn route<'s>(&mut self, path: &str, to: &StoreRef, ids: impl Iterator<Item = Option<&'s str>>) -> Route {
        let ids: Vec<Option<&str>> = ids.collect();
        if to.disabled || ids.is_empty() {
            return None;
        }
        let Some(id) = to.id.as_deref() else { return Some(0) };
        let found = ids.iter().position(|known| *known == Some(id));
        if found.is_none() {
            let known: Vec<&str> = ids.iter().flatten().copied().collect();
            let message =
                format!("no store has the id `{id}` (there are: {}); the first store is used", known.join(", "));
            self.warn(&format!("{path}.id"), message);
        }
        Some(found.unwrap_or(0))
    }

    fn event_store(&mut self, path: &str, store: &written::EventStore) -> EventStore {
        match &store.kind {
            EventStoreKind::Disabled => EventStore::Disabled,
            EventStoreKind::Stdout => EventStore::Stdout,
            EventStoreKind::Otel => {
                let otel = self.otel(path, store.clone().collector());
                EventStore::Otel(Otel { flat_attributes: store.flat_attributes, ..otel })
            }
            EventStoreKind::Axiom => self.axiom(path, store).map_or(EventStore::Disabled, EventStore::Axiom),
            EventStoreKind::Pulse => {
                let message = "this store is its vendor's cloud and does not act; events are dropped";
                self.warn(&format!("{path}.type"), message);
                EventStore::Disabled
            }
            EventStoreKind::Other(kind) => {
                self.warn(&format!("{path}.type"), unknown(kind, "otel, axiom, stdout, disabled"));
                EventStore::Stdout
            }
        }
    }

    fn axiom(&mut self, path: &str, store: &written::EventStore) -> Option<Axiom> {
        let mut needed = |name: &str, source: &Option<ValueSource>| {
            let Some(source) = source else {
                self.refuse(path, format!("an axiom store needs a `{name}`"));
                return None;
            };
            self.value(&format!("{path}.{name}"), source)
        };
        let (dataset, token) = (needed("dataset", &store.dataset), needed("token", &store.token));
        let url = self.filled(&format!("{path}.url"), store.url.as_deref().unwrap_or(effective::AXIOM));
        self.check_address(&format!("{path}.url"), &url);
        Some(Axiom { url, dataset: dataset?, token: token? })
    }

    fn object_store(&mut self, path: &str, store: &written::ObjectStore) -> Option<ObjectStore> {
        Some(match &store.kind {
            ObjectStoreKind::Disabled => ObjectStore::Disabled,
            ObjectStoreKind::Stdout => ObjectStore::Stdout,
            ObjectStoreKind::S3 => ObjectStore::S3(self.s3(path, store)?),
            ObjectStoreKind::Otel => ObjectStore::Otel(self.otel(path, store.clone().collector())),
            ObjectStoreKind::Disk => {
                let Some(folder) = store.path.clone() else {
                    self.refuse(path, "a disk store needs a `path`");
                    return None;
                };
                let access_url = store.access_url.clone().unwrap_or_default();
                self.check_template(path, &access_url);
                ObjectStore::Disk { path: folder, access_url }
            }
            ObjectStoreKind::Qpoint => {
                let message = "this store is its vendor's cloud and does not act; objects are dropped";
                self.warn(&format!("{path}.type"), message);
                ObjectStore::Disabled
            }
            ObjectStoreKind::Other(kind) => {
                self.warn(&format!("{path}.type"), unknown(kind, "s3, otel, disk, stdout, disabled"));
                ObjectStore::Stdout
            }
        })
    }

    /// A text with the environment put in. What lacks a variable is refused.
    pub(super) fn filled(&mut self, path: &str, text: &str) -> String {
        from_environment(text).unwrap_or_else(|name| {
            self.refuse(path, format!("the environment variable `{name}` is not set"));
            "localhost".to_owned()
        })
    }

    pub(super) fn check_address(&mut self, path: &str, endpoint: &str) {
        let url = if endpoint.contains("://") { endpoint.to_owned() } else { format!("http://{endpoint}") };
        if !url.parse::<Uri>().is_ok_and(|uri| uri.host().is_some_and(|host| !host.is_empty())) {
            self.refuse(path, format!("found `{endpoint}`; expected host and port, or a URL"));
        }
    }

    pub(super) fn check_template(&mut self, path: &str, template: &str) {
        let tells_apart = ["{{DIGEST}}", "{{KEY}}", "{{PRESIGNED}}"].iter().any(|name| template.contains(name));
        if !template.is_empty() && !tells_apart {
            self.warn(&format!("{path}.access_url"), "without {{DIGEST}} all objects get the same url");
        }
    }
}

fn unknown(kind: &str, known: &str) -> String {
    format!("found `{kind}`; expected one of {known}. It goes to standard output, as it does in Qtap")
}
