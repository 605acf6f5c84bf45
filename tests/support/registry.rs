//! A schema registry that a test has for itself, and serializers that are not ours (tests/services/registry).

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::servers::{repository, required, run};
use super::wait;

/// Apicurio, running. What it knows is in memory. It ends with the test.
pub(crate) struct Registry {
    url: String,
}

/// A schema as it is registered.
#[derive(Clone, Debug)]
pub(crate) struct Schema {
    pub(crate) subject: &'static str,
    pub(crate) text: String,
    /// What it calls another one, and the subject that has it, in its first version.
    pub(crate) references: Vec<(&'static str, &'static str)>,
}

/// What came of encoding.
pub(crate) struct Encoded {
    /// The schemas' ids.
    pub(crate) ids: Vec<u64>,
    pub(crate) values: Vec<Vec<u8>>,
}

/// A schema's fingerprint as Java tells it, big-endian, and values as its encoder writes them.
pub(crate) struct SingleObjects {
    pub(crate) keys: Vec<Vec<u8>>,
    pub(crate) values: Vec<Vec<u8>>,
}

/// Encodes values as single objects by Java's own Avro, each by the schema at its place; they are in Avro's own JSON.
pub(crate) fn single_objects(schemas: &[String], values: &[(usize, Value)]) -> SingleObjects {
    let value = |(at, value): &(usize, Value)| json!({ "schema": at, "value": value });
    let work =
        json!({ "schemas": schemas, "values": values.iter().map(value).collect::<Vec<_>>() });
    let mut command = Command::new(tool("clients"));
    command.arg("single-object");
    let answer = answer(&mut command, &work);
    SingleObjects { keys: bytes_of(&answer, "keys"), values: values_of(&answer) }
}

fn tool(name: &str) -> PathBuf {
    PathBuf::from(required("FOLDLINE_KAFKA_BIN")).join(name)
}

fn script(arguments: &[&str]) -> Command {
    let mut command = Command::new(tool("registry"));
    command.args(arguments);
    command
}

fn service(arguments: &[&str]) -> String {
    run(&mut script(arguments)).trim().to_owned()
}

impl Registry {
    /// Starts one that has no schemas.
    pub(crate) fn start() -> Self {
        Registry { url: service(&["start"]) }
    }

    /// Its address.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    fn port(&self) -> &str {
        self.url.split(&[':', '/'][..]).nth(4).unwrap()
    }

    /// Stands still: whoever asks gets no answer.
    pub(crate) fn pause(&self) {
        service(&["pause", self.port()]);
    }

    /// Goes on.
    pub(crate) fn resume(&self) {
        service(&["cont", self.port()]);
    }

    /// Loses all that it has.
    pub(crate) fn empty(&self) {
        service(&["kill", self.port()]);
        assert_eq!(service(&["start", self.port()]), self.url);
    }

    /// Deletes a subject as its API does first: the ids of its schemas stay.
    pub(crate) async fn delete_softly(&self, subject: &str) {
        let url = format!("{}/subjects/{subject}", self.url);
        let answer = crate::support::http(wait::SOON).delete(&url).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{url}");
    }

    /// Registers these schemas in their order and encodes the values, each by the schema at its place, with Confluent's own
    /// client and serializer. A decimal is written `{"$decimal": "1.50"}`.
    pub(crate) fn encode(&self, schemas: &[Schema], values: &[(usize, Value)]) -> Encoded {
        let schema = |schema: &Schema| {
            let reference = |(name, subject): &(&str, &str)| json!({ "name": name, "subject": subject, "version": 1 });
            let references: Vec<Value> = schema.references.iter().map(reference).collect();
            json!({ "subject": schema.subject, "text": schema.text, "references": references })
        };
        let value = |(at, value): &(usize, Value)| json!({ "schema": at, "value": value });
        let answer = encode(
            "encode.py",
            &json!({
                "registry": self.url,
                "schemas": schemas.iter().map(schema).collect::<Vec<_>>(),
                "values": values.iter().map(value).collect::<Vec<_>>(),
            }),
        );
        let ids = answer["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
        Encoded { ids, values: values_of(&answer) }
    }

    /// Values of Confluent's frame as its own deserializer reads them, each as JSON.
    pub(crate) fn decode<'a>(&self, values: impl Iterator<Item = &'a Vec<u8>>) -> Vec<String> {
        let hex = |value: &Vec<u8>| -> String {
            value.iter().map(|byte| format!("{byte:02x}")).collect()
        };
        let work = json!({ "registry": self.url, "values": values.map(hex).collect::<Vec<_>>() });
        let answer = encode("decode.py", &work);
        let texts = answer["values"].as_array().unwrap().iter();
        texts.map(|text| text.as_str().unwrap().to_owned()).collect()
    }

    /// Sets how far schemas of a subject may differ from those before.
    pub(crate) async fn compatible(&self, subject: &str, level: &str) {
        let url = format!("{}/config/{subject}", self.url);
        let body = json!({ "compatibility": level });
        let answer = crate::support::http(wait::SOON).put(&url).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{url}");
    }

    /// The ids of a subject's schemas.
    pub(crate) async fn ids(&self, subject: &str) -> Vec<u64> {
        let get = async |path: String| -> Value {
            let url = format!("{}/subjects/{subject}/versions{path}", self.url);
            reqwest::get(&url).await.unwrap().json().await.unwrap()
        };
        let mut ids = Vec::new();
        for version in get(String::new()).await.as_array().unwrap() {
            ids.push(get(format!("/{version}")).await["id"].as_u64().unwrap());
        }
        ids
    }

    /// Encodes messages of these files by Google's own Protobuf, `framed` ones by Confluent's serializer, and values without a
    /// `message` by its serializer of this JSON Schema. What they need is registered.
    pub(crate) fn encode_messages(
        &self,
        files: &[(&str, &str)],
        schema: &str,
        values: &[Value],
    ) -> Vec<Vec<u8>> {
        let files: serde_json::Map<String, Value> =
            files.iter().map(|(name, text)| ((*name).to_owned(), json!(text))).collect();
        let work =
            json!({ "registry": self.url, "files": files, "schema": schema, "values": values });
        values_of(&encode("encode_messages.py", &work))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // A test that failed says so, not that this failed too.
        drop(script(&["kill", self.port()]).output());
    }
}

fn values_of(answer: &Value) -> Vec<Vec<u8>> {
    bytes_of(answer, "values")
}

fn bytes_of(answer: &Value, name: &str) -> Vec<Vec<u8>> {
    let values = answer[name].as_array().unwrap();
    values.iter().map(|text| hex(text.as_str().unwrap())).collect()
}

/// What a script of tests/support answers, by the Python that has the encoders.
pub(crate) fn encode(script: &str, work: &Value) -> Value {
    let python = service(&["python"]);
    let mut command = Command::new(python);
    command.arg(repository().join("tests/support").join(script));
    answer(&mut command, work)
}

/// What a program answers that takes its work as JSON.
fn answer(command: &mut Command, work: &Value) -> Value {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let text = work.to_string();
    let writes = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the encoder ended with {}:\n{said}", output.status);
    writes.join().unwrap().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}
