//! Elasticsearch as a sink: documents that carry their own markers.
