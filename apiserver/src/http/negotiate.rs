//! Which form a caller wants objects in, and which form a body has.

use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, USER_AGENT};
use keelson_api::protobuf;
use keelson_api::status::{ApiError, ApiResult};

use crate::handlers::options::Query;

/// Media types an answer can have, as refusals list them.
const OFFERED: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
];

/// How values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// Protobuf, as the Go components write it.
    Protobuf,
}

impl Encoding {
    /// The content type of answers.
    pub fn content_type(self) -> &'static str {
        match self {
            Encoding::Json => "application/json",
            Encoding::Yaml => "application/yaml",
            Encoding::Protobuf => protobuf::MEDIA_TYPE,
        }
    }
}

/// What of an object is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// The object itself.
    Whole,
    /// `as=Table`.
    Table,
    /// `as=PartialObjectMetadata` and its list.
    Metadata,
}

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// How it is written.
    pub encoding: Encoding,
    /// What of it.
    pub shape: Shape,
}

/// Programs that show people what they get (upstream: `isPrettyPrint`).
const SHOWN: [&str; 3] = ["curl", "Wget", "Mozilla/5.0"];

/// Whether JSON is to have a line for each value: as `pretty` says, else when people see it.
pub fn pretty(headers: &HeaderMap, query: Query<'_>) -> bool {
    match query.text("pretty") {
        "" => {
            let agent = headers.get(USER_AGENT);
            agent.is_some_and(|agent| {
                SHOWN
                    .iter()
                    .any(|name| agent.as_bytes().starts_with(name.as_bytes()))
            })
        }
        given => matches!(given, "1" | "t" | "T" | "true" | "TRUE" | "True"),
    }
}

/// One entry of an Accept header.
#[derive(Debug, Clone)]
pub struct Accepted<'a> {
    /// `application/json`, lower case as clients write it.
    pub media_type: &'a str,
    /// Its parameters besides `q`.
    pub parameters: Vec<(&'a str, &'a str)>,
    quality: f32,
}

impl Accepted<'_> {
    /// Value of a parameter, empty when it has none.
    pub fn parameter(&self, name: &str) -> &str {
        self.parameters
            .iter()
            .find(|(k, _)| *k == name)
            .map_or("", |(_, v)| v)
    }

    /// Whether the entry covers a media type.
    pub fn covers(&self, media_type: &str) -> bool {
        match self.media_type {
            "*/*" | "*" => true,
            pattern => match pattern.strip_suffix("/*") {
                Some(main) => media_type.split('/').next() == Some(main),
                None => pattern == media_type,
            },
        }
    }
}

/// The entries of the Accept header, most wanted first.
pub fn accepted(headers: &HeaderMap) -> Vec<Accepted<'_>> {
    let mut entries: Vec<Accepted<'_>> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .map(|entry| {
            let mut parts = entry.split(';').map(str::trim);
            let media_type = parts.next().unwrap_or_default();
            let mut quality = 1.0;
            let mut parameters = Vec::new();
            for (key, value) in parts.filter_map(|p| p.split_once('=')) {
                if key == "q" {
                    quality = value.parse().unwrap_or(1.0)
                } else {
                    parameters.push((key, value))
                }
            }
            Accepted {
                media_type,
                parameters,
                quality,
            }
        })
        .filter(|entry| entry.quality > 0.0)
        .collect();
    // A stable sort: equals stay in the order given.
    entries.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    entries
}

/// The form an answer of objects gets. `tables` says whether Table and metadata forms can be given.
pub fn form(headers: &HeaderMap, tables: bool) -> ApiResult<Form> {
    let entries = accepted(headers);
    if entries.is_empty() {
        return Ok(Form {
            encoding: Encoding::Json,
            shape: Shape::Whole,
        });
    }
    for entry in &entries {
        let encoding = if entry.covers("application/json") {
            Encoding::Json
        } else if entry.covers("application/yaml") {
            Encoding::Yaml
        } else {
            continue;
        };
        let group = entry.parameter("g");
        let shape = match (entry.parameter("as"), entry.parameter("v")) {
            ("", _) => Shape::Whole,
            ("Table", "v1" | "v1beta1") if tables && group == "meta.k8s.io" => Shape::Table,
            ("PartialObjectMetadata" | "PartialObjectMetadataList", "v1" | "v1beta1")
                if tables && group == "meta.k8s.io" =>
            {
                Shape::Metadata
            }
            _ => continue,
        };
        return Ok(Form { encoding, shape });
    }
    // JSON is what objects are kept in: protobuf is made only for those who take nothing else.
    if entries
        .iter()
        .any(|entry| entry.media_type == protobuf::MEDIA_TYPE && entry.parameter("as").is_empty())
    {
        return Ok(Form {
            encoding: Encoding::Protobuf,
            shape: Shape::Whole,
        });
    }
    Err(ApiError::not_acceptable(OFFERED))
}

/// How a body is written. Nothing said is JSON.
pub fn body_encoding(headers: &HeaderMap) -> ApiResult<Encoding> {
    match media_type(headers) {
        "" | "application/json" | "*/*" => Ok(Encoding::Json),
        "application/yaml" => Ok(Encoding::Yaml),
        protobuf::MEDIA_TYPE => Ok(Encoding::Protobuf),
        _ => Err(ApiError::unsupported_media_type(OFFERED)),
    }
}

/// The body's media type without parameters.
pub fn media_type(headers: &HeaderMap) -> &str {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

/// Whether the caller can unpack gzip.
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|entry| {
            let mut parts = entry.split(';').map(str::trim);
            parts.next() == Some("gzip") && !parts.any(|p| p == "q=0")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(accept: &str) -> ApiResult<Form> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().expect("a header"));
        form(&headers, true)
    }

    #[test]
    fn the_first_form_that_can_be_given_is_given() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(ask(kubectl).expect("a form").shape, Shape::Table);
        let client = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(
            ask(client).expect("a form"),
            Form {
                encoding: Encoding::Json,
                shape: Shape::Whole
            }
        );
        assert_eq!(ask("application/yaml").expect("a form").encoding, Encoding::Yaml);
        assert_eq!(
            ask("application/json;q=0.1,application/yaml")
                .expect("a form")
                .encoding,
            Encoding::Yaml
        );
        assert_eq!(
            ask("application/vnd.kubernetes.protobuf")
                .expect("a form")
                .encoding,
            Encoding::Protobuf
        );
        assert_eq!(
            ask("text/html, */*;q=0.1").expect("a form").encoding,
            Encoding::Json
        );
        assert_eq!(
            ask("application/json;as=Nonsense;v=v1;g=meta.k8s.io")
                .expect_err("none")
                .code(),
            406
        );
    }

    #[test]
    fn people_get_a_line_for_each_value() {
        let asked = |agent: &str, pretty: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(USER_AGENT, agent.parse().expect("a header"));
            let query: Vec<_> = pretty
                .map(|value| ("pretty".to_owned(), value.to_owned()))
                .into_iter()
                .collect();
            super::pretty(&headers, Query(&query))
        };
        assert!(asked("curl/8.0", None) && asked("curl/8.0", Some("")) && asked("kubectl", Some("true")));
        assert!(
            !asked("kubectl", None) && !asked("curl/8.0", Some("false")) && !asked("curl/8.0", Some("yes"))
        );
    }
}
