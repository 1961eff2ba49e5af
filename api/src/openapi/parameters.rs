//! The parameters of requests.

use serde_json::{Value, json};

/// A parameter many operations share. The identifier is the one upstream's document refers to it by.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) id: &'static str,
    pub(super) name: &'static str,
    pub(super) place: &'static str,
    pub(super) ty: &'static str,
    pub(super) description: &'static str,
}

/// A parameter of an operation.
#[derive(Clone, Copy, Debug)]
pub(super) enum Parameter<'a> {
    /// One of [`SHARED`].
    Shared(&'static Shared),
    /// One that clients look for in the operation itself: written out wherever it is used.
    Inline(&'static Shared),
    /// The name of an object of a kind.
    Name(&'a str),
}

macro_rules! shared {
    ($($const:ident $id:literal $place:ident $ty:ident $description:literal)+) => {
        $(pub(super) static $const: Shared = Shared {
            id: $id,
            name: name_of($id),
            place: stringify!($place),
            ty: stringify!($ty),
            description: $description,
        };)+
        /// All shared parameters.
        pub(super) static SHARED: &[&Shared] = &[$(&$const),+];
    };
}

/// The identifier without the nine characters that tell parameters of one name apart.
const fn name_of(id: &'static str) -> &'static str {
    id.split_at(id.len() - 9).0
}

shared! {
    ALLOW_BOOKMARKS "allowWatchBookmarks-HC2hJt-J" query boolean
        "Asks a watch for bookmarks: events that carry only a resource version to resume from."
    COMMAND "command-Py3eQybp" query string "The command to run, one parameter a word. No shell is involved."
    CONTAINER_ATTACH "container-_Q-EJ3nR" query string "The container to attach to. Defaults to the only one of the pod."
    CONTAINER_EXEC "container-i5dOmRiM" query string "The container to run the command in. Defaults to the only one of the pod."
    CONTAINER_LOG "container-1GeXxFDC" query string "The container whose log is read. Defaults to the only one of the pod."
    CONTINUE "continue-QfD61s0i" query string
        "Continues a list in pages: the token that the page before ended with. An expired token is answered with 410; the list then starts anew."
    FIELD_MANAGER_PATCH "fieldManager-7c6nTn1T" query string
        "Who is making the change: printable, at most 128 characters. Required for apply patches."
    FIELD_MANAGER "fieldManager-Qy4HdaTW" query string "Who is making the change: printable, at most 128 characters."
    FIELD_SELECTOR "fieldSelector-xIcQKXFG" query string "Restricts the list to objects with these field values. Defaults to everything."
    FOLLOW "follow-9OIXh_2R" query boolean "Keeps the log stream open and sends what is written later."
    FORCE "force-tOGGb0Yi" query boolean
        "Takes over fields that other managers own when applying. Only for apply patches."
    GRACE_PERIOD "gracePeriodSeconds--K5HaBOS" query integer
        "Seconds before the object is deleted; zero deletes it at once. Defaults to the object's own grace period."
    IGNORE_READ_ERROR "ignoreStoreReadErrorWithClusterBreakingPotential-QbNkfIqj" query boolean
        "Deletes an object that cannot be read from the store, without its finalizers and preconditions."
    INSECURE_BACKEND "insecureSkipTLSVerifyBackend-gM00jVbe" query boolean
        "Reads the log without checking the certificate of the node that serves it."
    LABEL_SELECTOR "labelSelector-5Zw57w4C" query string "Restricts the list to objects with these labels. Defaults to everything."
    LIMIT "limit-1NfNmdNH" query integer
        "The most objects to answer with; the rest follows with the continue token. Pages of one list show one moment."
    LIMIT_BYTES "limitBytes-zwd1RXuc" query integer "The most bytes of log to answer with."
    NAMESPACE "namespace-vgWSWtn3" path string "object name and auth scope, such as for teams and projects"
    ORPHAN "orphanDependents-uRB25kX5" query boolean
        "Deprecated: use propagationPolicy. Whether dependents are kept without their owner."
    PATH_IN_PATH "path-z6Ciiujn" path string "The path of the request to pass on."
    PATH_NODE "path-rFDtV0x9" query string "The path on the node to pass the request to."
    PATH_POD "path-oPbzgLUj" query string "The path on the pod to pass the request to."
    PATH_SERVICE "path-QCf0eosM" query string "The path on the service to pass the request to."
    PORTS "ports-91KROJmm" query integer "The ports to forward, when WebSockets are used."
    PRETTY "pretty-tJGM1-ng" query string "Whether to indent the answer. Defaults to true for browsers, curl and wget."
    PREVIOUS "previous-1jxDPu3y" query boolean "Reads the log of the container before its last restart."
    PROPAGATION "propagationPolicy-6jk3prlO" query string
        "What becomes of dependents: Orphan keeps them, Background deletes them later, Foreground before the object itself."
    RESOURCE_VERSION "resourceVersion-5WAnf1kx" query string "Which state of the store to answer from. Defaults to the latest."
    RESOURCE_VERSION_MATCH "resourceVersionMatch-t8XhRHeC" query string
        "How resourceVersion is meant: NotOlderThan or Exact."
    SEND_INITIAL "sendInitialEvents-rLXlEK_k" query boolean
        "Begins a watch with the objects there are, and a bookmark after them. Needs resourceVersionMatch=NotOlderThan."
    SINCE_SECONDS "sinceSeconds-vE2NLdnP" query integer "Reads only what was logged in the last so many seconds."
    STDERR_ATTACH "stderr-26jJhFUR" query boolean "Whether to attach to the error stream. Defaults to true."
    STDERR_EXEC "stderr-W_1TNlWc" query boolean "Whether to send the error stream."
    STDIN_ATTACH "stdin-sEFnN3IS" query boolean "Whether to attach to the input stream. Defaults to false."
    STDIN_EXEC "stdin-PSzNhyUC" query boolean "Whether to pass an input stream. Defaults to false."
    STDOUT_ATTACH "stdout-005YMKE6" query boolean "Whether to attach to the output stream. Defaults to true."
    STDOUT_EXEC "stdout--EZLRwV1" query boolean "Whether to send the output stream."
    STREAM "stream-l-48cgXv" query string "Which stream of the log to read: All, Stdout or Stderr. Defaults to All."
    TAIL_LINES "tailLines-9xQLWHMV" query integer "Reads only so many lines at the end of the log."
    TIMEOUT "timeoutSeconds-yvYezaOC" query integer "Seconds after which a list or watch ends, whether it is complete or not."
    TIMESTAMPS "timestamps-c17fW1w_" query boolean "Begins each line of the log with the time it was written."
    TTY_ATTACH "tty-g7MlET_l" query boolean "Whether the container's streams are a terminal. Defaults to false."
    TTY_EXEC "tty-s0flW37O" query boolean "Whether to run the command in a terminal. Defaults to false."
    WATCH "watch-XNNPZGbK" query boolean "Sends changes as they happen instead of a list."
}

/// Written out in each operation: clients look for it there.
pub(super) static DRY_RUN: Shared = Shared {
    id: "",
    name: "dryRun",
    place: "query",
    ty: "string",
    description: "All: the request goes through every stage, but nothing is stored.",
};

/// Written out in each operation: clients look for it there.
pub(super) static FIELD_VALIDATION: Shared = Shared {
    id: "",
    name: "fieldValidation",
    place: "query",
    ty: "string",
    description: "What becomes of unknown and duplicate fields. Ignore: they are dropped. Warn: they are dropped, and a \
                  warning names them; this is the default. Strict: the request is refused with all of them named.",
};

impl Parameter<'_> {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Shared(one) | Self::Inline(one) => one.name,
            Self::Name(_) => "name",
        }
    }

    fn place(&self) -> &str {
        match self {
            Self::Shared(one) | Self::Inline(one) => one.place,
            Self::Name(_) => "path",
        }
    }

    fn ty(&self) -> &str {
        match self {
            Self::Shared(one) | Self::Inline(one) => one.ty,
            Self::Name(_) => "string",
        }
    }

    fn description(&self) -> String {
        match self {
            Self::Shared(one) | Self::Inline(one) => one.description.to_owned(),
            Self::Name(kind) => format!("name of the {kind}"),
        }
    }

    /// By name, and in the path before the query.
    pub(super) fn order(&self) -> (String, String) {
        (self.name().to_owned(), self.place().to_owned())
    }

    /// In a v2 document.
    pub(super) fn v2(&self) -> Value {
        match self {
            Self::Shared(one) => json!({"$ref": format!("#/parameters/{}", one.id)}),
            _ => self.v2_full(),
        }
    }

    /// In a v2 document, written out.
    pub(super) fn v2_full(&self) -> Value {
        let mut value = json!({
            "description": self.description(),
            "in": self.place(),
            "name": self.name(),
            "type": self.ty(),
            "uniqueItems": true,
        });
        if self.place() == "path" {
            value["required"] = true.into();
        }
        value
    }

    /// In a v3 document.
    pub(super) fn v3(&self) -> Value {
        let mut value = json!({
            "description": self.description(),
            "in": self.place(),
            "name": self.name(),
            "schema": {"type": self.ty(), "uniqueItems": true},
        });
        if self.place() == "path" {
            value["required"] = true.into();
        }
        value
    }
}
