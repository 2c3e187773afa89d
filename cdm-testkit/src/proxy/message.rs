//! Requests that a proxy received, and responses that it sends itself.

/// DynamoDB and Secrets Manager operations that are sent by POST and only read.
const READS: [&str; 7] = [
    "BatchGetItem",
    "DescribeSecret",
    "DescribeTable",
    "GetItem",
    "GetSecretValue",
    "Query",
    "TransactGetItems",
];

/// A request that a proxy received.
#[derive(Clone, Debug)]
pub struct HttpRequest {
    /// The method, such as `GET`.
    pub method: String,
    /// Path and query, as in the request line.
    pub target: String,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl HttpRequest {
    /// Returns the value of a header by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Returns the value of a query parameter as it was sent; empty if the parameter has no value.
    pub fn query(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Returns the name of the operation in the documentation of AWS, for the operations that the tests use; `?` for other
    /// requests.
    pub fn operation(&self) -> String {
        if let Some(target) = self.header("x-amz-target") {
            return target.rsplit('.').next().unwrap_or_default().to_owned();
        }
        let path = self.target.split('?').next().unwrap_or_default();
        let of_object = path.trim_matches('/').contains('/');
        let has = |name| self.query(name).is_some();
        match self.method.as_str() {
            "GET" if has("versions") => "ListObjectVersions",
            "GET" if has("uploads") => "ListMultipartUploads",
            "POST" if has("delete") => "DeleteObjects",
            "DELETE" if has("uploadId") => "AbortMultipartUpload",
            "DELETE" if of_object => "DeleteObject",
            "PUT" if of_object => "PutObject",
            "PUT" if has("publicAccessBlock") => "PutPublicAccessBlock",
            "PUT" if has("versioning") => "PutBucketVersioning",
            "PUT" => "CreateBucket",
            "HEAD" => "HeadBucket",
            _ => "?",
        }
        .to_owned()
    }

    /// Returns whether the request changes something: by its operation for DynamoDB and Secrets Manager, else by its method.
    pub fn changes_something(&self) -> bool {
        match self.header("x-amz-target") {
            Some(_) => !READS.contains(&self.operation().as_str()),
            None => self.method != "GET" && self.method != "HEAD",
        }
    }
}

/// A response that a proxy sends itself.
#[derive(Clone, Debug)]
pub struct HttpResponse {
    pub(super) status: u16,
    pub(super) content_type: String,
    pub(super) body: String,
    pub(super) retry_after: Option<u64>,
    /// How many bytes at the end of the body are not sent.
    pub(super) truncated: usize,
}

impl HttpResponse {
    /// How many bytes a truncated response lacks.
    const TRUNCATED: usize = 5;

    /// Creates a complete response, without `Retry-After`.
    pub fn new(status: u16, content_type: &str, body: &str) -> Self {
        let (content_type, body) = (content_type.to_owned(), body.to_owned());
        Self { status, content_type, body, retry_after: None, truncated: 0 }
    }

    /// Creates a response with JSON.
    pub fn json(status: u16, body: &str) -> Self {
        Self::new(status, "application/json", body)
    }

    /// Returns the HTTP status code, such as 200.
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// Adds the header `Retry-After`, in seconds.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// Returns the same response whose connection closes before the last bytes of the body.
    #[must_use]
    pub fn truncated(self) -> Self {
        Self { truncated: Self::TRUNCATED, ..self }
    }

    /// Returns the throttling error of the service that a request is for. DynamoDB and Secrets Manager name the operation in
    /// a header; S3 signs its requests without that header; Kubernetes does neither.
    pub(super) fn throttling(request: &HttpRequest) -> Self {
        if request.header("x-amz-target").is_some() {
            let body = r#"{"__type":"ThrottlingException","message":"Rate exceeded"}"#;
            return Self::new(400, "application/x-amz-json-1.0", body).retry_after(1);
        }
        if request.header("authorization").is_some_and(|value| value.starts_with("AWS4")) {
            let body =
                "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
            return Self::new(503, "application/xml", body).retry_after(1);
        }
        let body =
            r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"TooManyRequests","code":429}"#;
        Self::json(429, body).retry_after(1)
    }
}
