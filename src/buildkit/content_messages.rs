//! The messages of containerd's content API (`containerd.services.content.v1`).

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

/// `google.protobuf.Timestamp`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Timestamp {
    /// Since 1970.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// And nanoseconds.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl From<SystemTime> for Timestamp {
    /// Times before 1970 are 1970.
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(since.subsec_nanos()).unwrap_or_default(),
        }
    }
}

/// `google.protobuf.Empty`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Empty {}

/// What is known of a blob.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Info {
    /// Its name.
    #[prost(string, tag = "1")]
    pub digest: String,
    /// In bytes.
    #[prost(int64, tag = "2")]
    pub size: i64,
    /// When it was written.
    #[prost(message, optional, tag = "3")]
    pub created_at: Option<Timestamp>,
    /// When its labels were changed last.
    #[prost(message, optional, tag = "4")]
    pub updated_at: Option<Timestamp>,
    /// An OCI layout has none.
    #[prost(map = "string, string", tag = "5")]
    pub labels: HashMap<String, String>,
}

/// Asks for a blob: of `Info` and `Delete`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DigestRequest {
    /// Its name.
    #[prost(string, tag = "1")]
    pub digest: String,
}

/// The answer to `Info` and `Update`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct InfoResponse {
    /// What is known.
    #[prost(message, optional, tag = "1")]
    pub info: Option<Info>,
}

/// Asks for all: of `List` and `ListStatuses`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListRequest {
    /// Which ones; none is all.
    #[prost(string, repeated, tag = "1")]
    pub filters: Vec<String>,
}

/// Part of the answer to `List`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListResponse {
    /// Some blobs.
    #[prost(message, repeated, tag = "1")]
    pub info: Vec<Info>,
}

/// Asks for a part of a blob.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadRequest {
    /// Its name.
    #[prost(string, tag = "1")]
    pub digest: String,
    /// Where to begin.
    #[prost(int64, tag = "2")]
    pub offset: i64,
    /// How much; 0 is all the rest, and so is more than there is.
    #[prost(int64, tag = "3")]
    pub size: i64,
}

/// Part of the answer to `Read`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadResponse {
    /// Where it is in the answer.
    #[prost(int64, tag = "1")]
    pub offset: i64,
    /// The bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub data: Bytes,
}

/// What is known of a blob that is being written.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Status {
    /// When that began.
    #[prost(message, optional, tag = "1")]
    pub started_at: Option<Timestamp>,
    /// When the last part came.
    #[prost(message, optional, tag = "2")]
    pub updated_at: Option<Timestamp>,
    /// Its name until it has its own.
    #[prost(string, tag = "3")]
    pub r#ref: String,
    /// How much there is.
    #[prost(int64, tag = "4")]
    pub offset: i64,
    /// How much there will be, if that is known.
    #[prost(int64, tag = "5")]
    pub total: i64,
    /// The digest that it will have, if that is known.
    #[prost(string, tag = "6")]
    pub expected: String,
}

/// Asks for a blob that is being written: of `Status` and `Abort`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RefRequest {
    /// Its name until it has its own.
    #[prost(string, tag = "1")]
    pub r#ref: String,
}

/// The answer to `Status`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StatusResponse {
    /// What is known.
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
}

/// The answer to `ListStatuses`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListStatusesResponse {
    /// All that are being written.
    #[prost(message, repeated, tag = "1")]
    pub statuses: Vec<Status>,
}

/// What is to be done with a blob that is being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum WriteAction {
    /// Say how far it is.
    Stat = 0,
    /// Append.
    Write = 1,
    /// Append, and make it a blob.
    Commit = 2,
}

/// One step of writing a blob.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WriteRequest {
    /// What is to be done.
    #[prost(enumeration = "WriteAction", tag = "1")]
    pub action: i32,
    /// Its name until it has its own; the first message has it.
    #[prost(string, tag = "2")]
    pub r#ref: String,
    /// How big the blob is, if that is known.
    #[prost(int64, tag = "3")]
    pub total: i64,
    /// Its digest, if that is known.
    #[prost(string, tag = "4")]
    pub expected: String,
    /// Where the data belongs; 0 begins anew.
    #[prost(int64, tag = "5")]
    pub offset: i64,
    /// What to append.
    #[prost(bytes = "bytes", tag = "6")]
    pub data: Bytes,
    /// An OCI layout has none.
    #[prost(map = "string, string", tag = "7")]
    pub labels: HashMap<String, String>,
}

/// What came of it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WriteResponse {
    /// What was done.
    #[prost(enumeration = "WriteAction", tag = "1")]
    pub action: i32,
    /// When writing began.
    #[prost(message, optional, tag = "2")]
    pub started_at: Option<Timestamp>,
    /// When the last part came.
    #[prost(message, optional, tag = "3")]
    pub updated_at: Option<Timestamp>,
    /// How much there is now.
    #[prost(int64, tag = "4")]
    pub offset: i64,
    /// How much there will be, if that is known.
    #[prost(int64, tag = "5")]
    pub total: i64,
    /// The digest of what there is.
    #[prost(string, tag = "6")]
    pub digest: String,
}
