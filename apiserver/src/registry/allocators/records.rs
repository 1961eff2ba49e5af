//! How it is written down who has a number.

use bytes::Bytes;
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{IPAddress, IPAddressSpec, ParentReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use keelson_api::labels;
use keelson_api::status::{ApiError, ApiResult};
use serde::{Deserialize, Serialize};

/// Who has a number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Namespace, name and uid of the service: a successor of the same name is somebody else.
    pub owner: String,
    /// When it was taken, in seconds since 1970.
    pub since: i64,
}

/// What is in the store under a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Records {
    /// A record of the server's own.
    Plain,
    /// An `IPAddress`, which everybody can see, and which others may have created. It does not tell a service from
    /// its successor of the same name.
    Addresses,
}

impl Records {
    /// The bytes under a number.
    pub fn encode(self, text: &str, record: &Record) -> ApiResult<Bytes> {
        let bytes = match self {
            Self::Plain => serde_json::to_vec(record),
            Self::Addresses => serde_json::to_vec(&stored(text, record)?),
        };
        bytes.map(Bytes::from).map_err(ApiError::internal)
    }

    /// What the bytes say; `None` when they are not the allocator's.
    pub fn decode(self, bytes: &[u8]) -> Option<Record> {
        match self {
            Self::Plain => serde_json::from_slice(bytes).ok(),
            Self::Addresses => {
                let address: IPAddress = serde_json::from_slice(bytes).ok()?;
                let since = address
                    .metadata
                    .creation_timestamp
                    .as_ref()
                    .map_or(0, |at| at.0.as_second());
                Some(Record {
                    owner: service_of(&address)?,
                    since,
                })
            }
        }
    }

    /// Whether what cannot be read may be thrown away: another's address may not.
    pub fn unreadable_is_garbage(self) -> bool {
        self == Self::Plain
    }

    /// The owner as a record of this kind tells it.
    pub fn owner(self, owner: &str) -> &str {
        match self {
            Self::Plain => owner,
            Self::Addresses => owner.rsplit_once('/').map_or(owner, |(name, _uid)| name),
        }
    }
}

/// `namespace/name` of the service that an allocated address belongs to.
pub fn service_of(address: &IPAddress) -> Option<String> {
    let labels = address.metadata.labels.as_ref()?;
    if labels.get(labels::IP_ADDRESS_MANAGED_BY).map(String::as_str) != Some(labels::IP_ALLOCATOR) {
        return None;
    }
    let parent = &address.spec.parent_ref;
    if parent.resource != "services" || parent.group.as_deref().is_some_and(|group| !group.is_empty()) {
        return None;
    }
    Some(format!(
        "{}/{}",
        parent.namespace.as_deref().unwrap_or_default(),
        parent.name
    ))
}

/// The object for the address of a service.
pub fn address(text: &str, namespace: &str, service: &str) -> IPAddress {
    let family = if text.contains(':') { "IPv6" } else { "IPv4" };
    let labels = [
        (labels::IP_ADDRESS_FAMILY, family),
        (labels::IP_ADDRESS_MANAGED_BY, labels::IP_ALLOCATOR),
    ];
    IPAddress {
        metadata: ObjectMeta {
            name: Some(text.to_owned()),
            labels: Some(
                labels
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .collect(),
            ),
            ..ObjectMeta::default()
        },
        spec: IPAddressSpec {
            parent_ref: ParentReference {
                group: None,
                name: service.to_owned(),
                namespace: Some(namespace.to_owned()),
                resource: "services".to_owned(),
            },
        },
    }
}

/// The object as it lies in the store.
fn stored(text: &str, record: &Record) -> ApiResult<IPAddress> {
    let (namespace, rest) = record.owner.split_once('/').unwrap_or_default();
    let service = rest.split('/').next().unwrap_or_default();
    let mut address = address(text, namespace, service);
    address.metadata.uid = Some(uuid::Uuid::new_v4().to_string());
    let created = Timestamp::from_second(record.since).map_err(ApiError::internal)?;
    address.metadata.creation_timestamp = Some(Time(created));
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            owner: "ns/web/uid".into(),
            since: 1_000_000,
        }
    }

    #[test]
    fn records_are_read_back() {
        let bytes = Records::Plain.encode("30000", &record()).expect("bytes");
        assert_eq!(Records::Plain.decode(&bytes), Some(record()));
        let bytes = Records::Addresses.encode("10.96.0.7", &record()).expect("bytes");
        let found = Records::Addresses.decode(&bytes).expect("a record");
        assert_eq!((found.owner.as_str(), found.since), ("ns/web", 1_000_000));
        assert_eq!(Records::Addresses.owner(&record().owner), found.owner);
        let object: IPAddress = serde_json::from_slice(&bytes).expect("an address");
        assert_eq!(object.metadata.name.as_deref(), Some("10.96.0.7"));
        assert!(object.metadata.uid.is_some());
    }

    #[test]
    fn addresses_of_others_are_left_alone() {
        let mut other = address("10.96.0.7", "ns", "web");
        other.metadata.labels = None;
        let bytes = serde_json::to_vec(&other).expect("bytes");
        assert_eq!(Records::Addresses.decode(&bytes), None);
        assert!(!Records::Addresses.unreadable_is_garbage() && Records::Plain.unreadable_is_garbage());
    }
}
