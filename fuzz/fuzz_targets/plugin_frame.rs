#![no_main]
//! Frames between the CNI plugin and the agent.

use libfuzzer_sys::fuzz_target;
use plugin_api::{Call, GcRequest, Reply, Request, decode, decode_call, decode_length, encode};

fn round_trip<T>(message: &T)
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    // What was read may be longer when it is written: escapes.
    let Ok(frame) = encode(message) else { return };
    let (prefix, body) = frame.split_first_chunk().expect("a length is in front");
    assert_eq!(decode_length(*prefix).ok(), Some(body.len()));
    assert_eq!(decode::<T>(body).ok().as_ref(), Some(message));
}

fuzz_target!(|bytes: &[u8]| {
    if let Some((prefix, _)) = bytes.split_first_chunk() {
        assert!(
            decode_length(*prefix).is_ok_and(|length| length <= plugin_api::MAX_FRAME)
                || u32::from_be_bytes(*prefix) as usize > plugin_api::MAX_FRAME
        );
    }
    if let Ok(request) = decode::<Request>(bytes) {
        round_trip(&request);
    }
    if let Ok(gc) = decode::<GcRequest>(bytes) {
        round_trip(&gc);
    }
    if let Ok(Call::Pod(request)) = decode_call(bytes) {
        assert_eq!(decode::<Request>(bytes).ok(), Some(request));
    }
    if let Ok(reply) = decode::<Reply>(bytes) {
        round_trip(&reply);
    }
});
