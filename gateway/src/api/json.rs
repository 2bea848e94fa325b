//! Every unary call as `POST /v1/{Call}` with JSON: the names and fields of the `.proto` files, by
//! reflection, so that the two cannot differ.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::{Extensions, HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use broadgate_proto::{
    DESCRIPTORS, fields,
    limits::{HANDSHAKE_TIME_MAX, JSON_BODIES_BYTES_MAX},
    parse_error::without_value,
    v1::{self, answer::Answer},
};
use bytes::Bytes;
use metrics::counter;
use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions, Value,
};
use serde::de::Error as _;
use tonic::Code;

use super::{calls, denials, lenient, once, unknown_names};
use crate::{
    callers::Caller,
    command::refusal,
    dispatch::Dispatcher,
    refusals::{RefusalContext, Refusals},
    request_bodies::{Bodies, Lease, Unread},
};

struct Json {
    dispatcher: Arc<Dispatcher>,
    /// The bodies of all calls.
    bodies: Arc<Bodies>,
    body_bytes_max: usize,
    pool: DescriptorPool,
    refusals: Arc<Refusals>,
}

/// Requests are authorized before they get here.
pub(super) fn router(
    dispatcher: Arc<Dispatcher>,
    refusals: Arc<Refusals>,
    body_bytes_max: usize,
) -> anyhow::Result<Router> {
    let pool = DescriptorPool::decode(DESCRIPTORS)?;
    // Two of the largest fit.
    let all = JSON_BODIES_BYTES_MAX.max(2 * body_bytes_max);
    let state = Arc::new(Json { dispatcher, bodies: Bodies::new(all, all), body_bytes_max, pool, refusals });
    Ok(Router::new().route("/v1/{call}", post(answer).fallback(only_post)).with_state(state))
}

async fn only_post(request: http::Request<Body>) -> Response {
    counter!("broadgate_gateway_http_errors_total").increment(1);
    broadgate_port::only_post(&request)
}

/// Unknown paths: a call of another service, or a guess.
pub(super) async fn nothing_here(request: http::Request<Body>) -> Response {
    counter!("broadgate_gateway_http_errors_total").increment(1);
    broadgate_port::nothing_here(
        &request,
        "this is a gateway's internal port, which takes commands by gRPC and as POST /v1/{Call} with JSON; \
         clients connect to its listeners",
    )
}

async fn answer(
    State(json): State<Arc<Json>>,
    Path(call): Path<String>,
    headers: HeaderMap,
    extensions: Extensions,
    body: Body,
) -> Response {
    let caller = Caller::of(&extensions);
    match json.run(&call, &headers, &caller, body).await {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => {
            counter!("broadgate_gateway_http_errors_total").increment(1);
            let (why, address, path) = (&*error.error.message, caller.from, format!("/v1/{call}"));
            let refused =
                |reason| RefusalContext { reason, why, address, path: &path, ..RefusalContext::default() };
            match (error.is_for_room, refused_reason(Code::from_i32(error.error.code))) {
                (true, _) => refused("json_bodies_bytes_max").count_and_log(&json.refusals),
                (false, Some(reason)) => refused(reason).log(&json.refusals),
                (false, None) => {}
            }
            error.into_response()
        }
    }
}

/// Why a command was refused, for the log; none where the answer concerns what the command names.
fn refused_reason(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::InvalidArgument => "command_invalid",
        Code::ResourceExhausted => "command_too_large",
        Code::DeadlineExceeded => "command_slow",
        Code::Unimplemented => "command_unknown",
        // What it may not do is noted where that is decided.
        _ => return None,
    })
}

fn after(headers: &HeaderMap) -> Result<Option<v1::Epoch>, v1::Error> {
    let Some(value) = headers.get(crate::api::headers::EPOCH_HEADER) else { return Ok(None) };
    let epoch = value.to_str().ok().and_then(|text| text.parse().ok());
    let sentence = format!("{} is not TERM.COUNT as in an answer's epoch", crate::api::headers::EPOCH_HEADER);
    epoch.map(Some).ok_or_else(|| refusal(Code::InvalidArgument, sentence))
}

/// A refusal as HTTP.
struct HttpError {
    error: v1::Error,
    /// The budget for request bodies is used up.
    is_for_room: bool,
}

impl From<v1::Error> for HttpError {
    fn from(error: v1::Error) -> Self {
        Self { error, is_for_room: false }
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let code = Code::from_i32(self.error.code);
        let status = match code {
            Code::InvalidArgument => StatusCode::BAD_REQUEST,
            Code::Unauthenticated => StatusCode::UNAUTHORIZED,
            Code::PermissionDenied => StatusCode::FORBIDDEN,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::Aborted => StatusCode::CONFLICT,
            Code::ResourceExhausted => StatusCode::PAYLOAD_TOO_LARGE,
            Code::DeadlineExceeded => StatusCode::REQUEST_TIMEOUT,
            Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let name = format!("{code:?}").chars().fold(String::new(), |mut name, letter| {
            if letter.is_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(letter.to_ascii_uppercase());
            name
        });
        let body = serde_json::json!({ "error": { "code": name, "message": self.error.message } });
        let mut response = (status, axum::Json(body)).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl Json {
    async fn run(
        &self,
        call: &str,
        headers: &HeaderMap,
        caller: &Caller,
        body: Body,
    ) -> Result<Vec<u8>, HttpError> {
        // A web page cannot set it without a preflight.
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if kind.split(';').next().map(str::trim) != Some("application/json") {
            let sentence = "send `Content-Type: application/json`";
            return Err(refusal(Code::InvalidArgument, sentence).into());
        }
        let after = after(headers)?;
        let mut lease = self.bodies.lease("");
        let body = self.read(&mut lease, body).await?;
        // These concern this gateway alone, so they are no commands.
        match call {
            "GetApp" => return Ok(self.app(caller, &body)?),
            "WhoAmI" => return Ok(self.who_am_i(caller, &body).await?),
            "Gateways" => return Ok(self.gateways(caller, &body)?),
            _ => {}
        }
        let command = command(&self.pool, call, &body)?;
        let listed = match &command {
            v1::command::Command::ListClients(request) => Some(request.fields().collect::<Vec<_>>()),
            _ => None,
        };
        match calls::run(&self.dispatcher, caller, command, after, None).await {
            Answer::Error(error) => Err(error.into()),
            answer => Ok(self.encode(answer, listed.as_deref())?),
        }
    }

    async fn read(&self, lease: &mut Lease, body: Body) -> Result<Bytes, HttpError> {
        let Ok(read) = tokio::time::timeout(HANDSHAKE_TIME_MAX, lease.read(body, self.body_bytes_max)).await
        else {
            let sentence = format!("the body did not come within {HANDSHAKE_TIME_MAX:?}");
            return Err(refusal(Code::DeadlineExceeded, sentence).into());
        };
        read.map_err(|unread| match unread {
            Unread::TooLarge(max) => {
                refusal(Code::ResourceExhausted, format!("the body is larger than {max} bytes")).into()
            }
            Unread::Spent => {
                let sentence = "the gateway's budget for request bodies is used up: repeat";
                HttpError { error: refusal(Code::Unavailable, sentence), is_for_room: true }
            }
            Unread::Broken(error) => {
                refusal(Code::InvalidArgument, format!("the body could not be read: {error}")).into()
            }
        })
    }

    fn app(&self, caller: &Caller, body: &[u8]) -> Result<Vec<u8>, v1::Error> {
        let request: v1::GetAppRequest = self.request("GetAppRequest", body)?;
        let allowed = denials::may_call(&self.dispatcher, caller, "GetApp", &request.app);
        allowed.map_err(|status| refusal(status.code(), status.message()))?;
        self.reply("AppReply", &self.dispatcher.app(&request.app)?)
    }

    async fn who_am_i(&self, caller: &Caller, body: &[u8]) -> Result<Vec<u8>, v1::Error> {
        let _: v1::WhoAmIRequest = self.request("WhoAmIRequest", body)?;
        self.reply("WhoAmIReply", &calls::who_am_i(&self.dispatcher, caller).await?)
    }

    fn gateways(&self, caller: &Caller, body: &[u8]) -> Result<Vec<u8>, v1::Error> {
        let request: v1::GatewaysRequest = self.request("GatewaysRequest", body)?;
        self.reply("GatewaysReply", &calls::gateways(&self.dispatcher, caller, &request)?)
    }

    fn request<T: prost::Message + Default>(&self, name: &str, body: &[u8]) -> Result<T, v1::Error> {
        let request = descriptor(&self.pool, name).ok_or_else(unwritable)?;
        let request = read(&request, body).map_err(|error| malformed(&request, &error))?;
        T::decode(&request.encode_to_vec()[..]).map_err(|_| unwritable())
    }

    fn reply(&self, name: &str, reply: &impl prost::Message) -> Result<Vec<u8>, v1::Error> {
        let descriptor = descriptor(&self.pool, name).ok_or_else(unwritable)?;
        let reply = DynamicMessage::decode(descriptor, &reply.encode_to_vec()[..]);
        written(&reply.map_err(|_| unwritable())?)
    }

    /// The JSON of an answer, with every field; for listed clients, those that were asked for.
    fn encode(&self, answer: Answer, listed: Option<&[v1::ClientField]>) -> Result<Vec<u8>, v1::Error> {
        let whole = v1::Answer { id: 0, answer: Some(answer) };
        let descriptor = descriptor(&self.pool, "Answer").ok_or_else(unwritable)?;
        let whole =
            DynamicMessage::decode(descriptor, &whole.encode_to_vec()[..]).map_err(|_| unwritable())?;
        let (_, value) =
            whole.fields().find(|(field, _)| field.kind().as_message().is_some()).ok_or_else(unwritable)?;
        let message = value.as_message().ok_or_else(unwritable)?;
        let Some(asked) = listed else { return written(message) };
        let mut value = message
            .serialize_with_options(serde_json::value::Serializer, &options())
            .map_err(|_| unwritable())?;
        // It has them with their defaults.
        let clients = value.get_mut("clients").and_then(serde_json::Value::as_array_mut);
        for client in clients.into_iter().flatten().filter_map(serde_json::Value::as_object_mut) {
            fields::absent(asked).for_each(|field| drop(client.remove(field)));
        }
        serde_json::to_vec(&value).map_err(|_| unwritable())
    }
}

fn unwritable() -> v1::Error {
    refusal(Code::Internal, "the answer could not be written as JSON")
}

fn malformed(request: &MessageDescriptor, error: &dyn std::fmt::Display) -> v1::Error {
    refusal(
        Code::InvalidArgument,
        format!("the body is not a {}: {}", request.name(), without_value(&error.to_string())),
    )
}

fn written(message: &DynamicMessage) -> Result<Vec<u8>, v1::Error> {
    let mut json = serde_json::Serializer::new(Vec::new());
    message.serialize_with_options(&mut json, &options()).map_err(|_| unwritable())?;
    Ok(json.into_inner())
}

fn options() -> SerializeOptions {
    SerializeOptions::new()
        .stringify_64_bit_integers(false)
        .use_proto_field_name(true)
        .skip_default_fields(false)
}

/// The services whose calls are commands.
const SERVICES: [&str; 2] = ["broadgate.v1.Gateway", "broadgate.v1.Observe"];

/// The command of a call: the field of `Command` whose type is the call's request.
fn command(pool: &DescriptorPool, call: &str, body: &[u8]) -> Result<v1::command::Command, v1::Error> {
    let unknown =
        || refusal(Code::NotFound, format!("there is no call {call:?}: see gateway.proto for the calls"));
    let services = SERVICES.iter().filter_map(|service| pool.get_service_by_name(service));
    let method = services
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .find(|method| method.name() == call && !method.is_client_streaming());
    let request = method.ok_or_else(unknown)?.input();
    let command = descriptor(pool, "Command").ok_or_else(unknown)?;
    let field =
        command.fields().find(|field| field.kind().as_message() == Some(&request)).ok_or_else(unknown)?;
    let malformed = |error: &dyn std::fmt::Display| malformed(&request, error);
    let message = read(&request, body).map_err(|error| malformed(&error))?;
    let mut whole = DynamicMessage::new(command);
    whole.set_field(&field, Value::Message(message));
    let whole = v1::Command::decode(&whole.encode_to_vec()[..]).map_err(|error| malformed(&error))?;
    whole.command.ok_or_else(unknown)
}

fn descriptor(pool: &DescriptorPool, name: &str) -> Option<MessageDescriptor> {
    pool.get_message_by_name(&format!("broadgate.v1.{name}"))
}

/// The same, for the fuzz targets.
#[cfg(feature = "fuzz")]
pub(crate) fn fuzz(call: &str, body: &[u8]) -> Result<v1::command::Command, v1::Error> {
    let pool =
        DescriptorPool::decode(DESCRIPTORS).map_err(|error| refusal(Code::Internal, error.to_string()))?;
    command(&pool, call, body)
}

/// Decodes a message from its JSON. An unknown name of a value is named with its field and what can stand there.
fn read(request: &MessageDescriptor, body: &[u8]) -> Result<DynamicMessage, serde_json::Error> {
    parse(request, body).map_err(|error| {
        if !error.to_string().starts_with("unrecognized enum value") {
            return error;
        }
        let value = serde_json::from_slice(body).ok();
        let sentence = value.and_then(|value| unknown_names::find(&value, request));
        sentence.map_or(error, serde_json::Error::custom)
    })
}

/// Only if the strict parser fails the message is decoded again with PHP's forms allowed, so that
/// everything else keeps its speed, and its errors with their position.
fn parse(request: &MessageDescriptor, body: &[u8]) -> Result<DynamicMessage, serde_json::Error> {
    // The strict parser's error says what is expected.
    if let Err(twice) = once::check(body, request)
        && twice.is_data()
    {
        return Err(twice);
    }
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let mut json = serde_json::Deserializer::from_slice(body);
    let strict = DynamicMessage::deserialize_with_options(request.clone(), &mut json, &options)
        .and_then(|message| json.end().map(|()| message));
    let Err(error) = strict else { return strict };
    let Ok(mut value) = serde_json::from_slice(body) else { return Err(error) };
    if !lenient::adapt(&mut value, request) {
        return Err(error);
    }
    DynamicMessage::deserialize_with_options(request.clone(), value, &options)
}
