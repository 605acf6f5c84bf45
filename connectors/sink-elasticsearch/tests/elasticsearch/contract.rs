//! The contract that every sink must pass.

use std::sync::Arc;

use async_trait::async_trait;
use foldline_api::sink::{Target, TargetSpec};
use foldline_sink_elasticsearch::{ElasticsearchConfig, ElasticsearchTarget};
use foldline_testkit::{Store, sink_contract};
use serde_json::{Value as Json, json};

struct Cluster {
    url: String,
    run: String,
    http: reqwest::Client,
}

impl Cluster {
    async fn call(&self, method: reqwest::Method, path: &str, body: Option<Json>) -> Json {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.expect("Elasticsearch answers");
        response.json().await.unwrap_or_default()
    }

    /// Deletes the indexes whose names start with `prefix`.
    async fn drop_indexes(&self, prefix: &str) {
        let path = format!("/{prefix}*?expand_wildcards=all&allow_no_indices=true");
        let indexes = self.call(reqwest::Method::GET, &path, None).await;
        for index in indexes.as_object().into_iter().flat_map(|indexes| indexes.keys()) {
            self.call(reqwest::Method::DELETE, &format!("/{index}"), None).await;
        }
    }

    async fn clean(&self) {
        self.drop_indexes(&self.run).await;
        self.call(reqwest::Method::POST, "/foldline-books/_refresh", None).await;
        let query = json!({ "size": 10_000, "query": { "prefix": { "target": self.run } } });
        let path = "/foldline-books/_search";
        let found = self.call(reqwest::Method::POST, path, Some(query)).await;
        for hit in found["hits"]["hits"].as_array().into_iter().flatten() {
            let path = format!("/foldline-books/_doc/{}", hit["_id"].as_str().unwrap());
            self.call(reqwest::Method::DELETE, &path, None).await;
        }
    }
}

#[async_trait]
impl Store for Cluster {
    async fn target(&self, spec: TargetSpec) -> Arc<dyn Target> {
        let urls = vec![self.url.clone()];
        let config = ElasticsearchConfig { urls, ..ElasticsearchConfig::default() };
        Arc::new(ElasticsearchTarget::new(&config, spec).unwrap())
    }

    async fn drop_target(&self, target: &str) {
        self.drop_indexes(&format!("{target}-g")).await;
    }

    fn name(&self, case: &str) -> String {
        format!("{}-{}", self.run, case.replace(' ', "-").to_lowercase())
    }
}

#[tokio::test]
async fn elasticsearch_keeps_the_contract() {
    let url = std::env::var("ELASTICSEARCH")
        .expect("set ELASTICSEARCH to the address of a cluster, as http://localhost:9200");
    let run = format!("contract-{:x}", rand::random::<u64>());
    let cluster = Cluster { url, run, http: reqwest::Client::new() };
    sink_contract(&cluster).await;
    cluster.clean().await;
}
