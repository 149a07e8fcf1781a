// SPDX-License-Identifier: Apache-2.0
//! The C ABI, declared in worker/text/temper_text.h. Nothing unwinds across it: a panic becomes an error.
//!
//! Callers pass pointers that are valid for the sizes given, and free what they get with the function that belongs to it.
#![allow(clippy::missing_safety_doc)] // the sentence above holds for every function

use std::panic::{catch_unwind, AssertUnwindSafe};

use crate::chat_template::{ChatTemplate, Rendering};
use crate::tokenizer::{Token, Tokenizer};

/// A buffer that Rust owns; `temper_text_free` gives it back.
#[repr(C)]
pub struct Bytes {
    data: *mut u8,
    size: usize,
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        let bytes = bytes.into_boxed_slice();
        let size = bytes.len();
        Bytes { data: Box::into_raw(bytes).cast(), size }
    }
}

/// What `body` returns; none, with the error's text in `error`, when it fails or panics.
unsafe fn guarded<T>(error: *mut Bytes, body: impl FnOnce() -> Result<T, String>) -> Option<T> {
    let message = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => return Some(value),
        Ok(Err(message)) => message,
        Err(panic) => {
            let message = panic.downcast_ref::<String>().map(String::as_str);
            let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            format!("the text library panicked: {message}")
        }
    };
    error.write(message.into_bytes().into());
    None
}

/// The same for a function that hands out a buffer, or the error's text, in `out`.
unsafe fn fill(out: *mut Bytes, body: impl FnOnce() -> Result<Vec<u8>, String>) -> bool {
    guarded(out, body).map(|bytes| out.write(bytes.into())).is_some()
}

unsafe fn bytes<'a>(data: *const u8, size: usize) -> &'a [u8] {
    if size == 0 {
        &[]
    } else {
        std::slice::from_raw_parts(data, size)
    }
}

unsafe fn text<'a>(data: *const u8, size: usize) -> Result<&'a str, String> {
    std::str::from_utf8(bytes(data, size)).map_err(|error| format!("the text is not UTF-8: {error}"))
}

#[no_mangle]
pub unsafe extern "C" fn temper_text_free(buffer: Bytes) {
    if !buffer.data.is_null() {
        drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(buffer.data, buffer.size)));
    }
}

#[no_mangle]
pub unsafe extern "C" fn temper_tokenizer_open(json: *const u8, size: usize, error: *mut Bytes) -> *mut Tokenizer {
    let tokenizer = guarded(error, || Tokenizer::from_json(bytes(json, size)));
    tokenizer.map_or(std::ptr::null_mut(), |tokenizer| Box::into_raw(Box::new(tokenizer)))
}

#[no_mangle]
pub unsafe extern "C" fn temper_tokenizer_close(tokenizer: *mut Tokenizer) {
    if !tokenizer.is_null() {
        drop(Box::from_raw(tokenizer));
    }
}

#[no_mangle]
pub unsafe extern "C" fn temper_tokenizer_add_tokens(
    tokenizer: *mut Tokenizer,
    json: *const u8,
    size: usize,
    error: *mut Bytes,
) -> bool {
    guarded(error, || (*tokenizer).add_tokens(bytes(json, size))).is_some()
}

#[no_mangle]
pub unsafe extern "C" fn temper_tokenizer_encode(
    tokenizer: *const Tokenizer,
    data: *const u8,
    size: usize,
    add_special_tokens: bool,
    out: *mut Bytes,
) -> bool {
    fill(out, || {
        let tokens = (*tokenizer).encode(text(data, size)?, add_special_tokens)?;
        let words = tokens.iter().flat_map(|Token { id, begin, end }| [id, begin, end]);
        Ok(words.flat_map(|word| word.to_ne_bytes()).collect())
    })
}

#[no_mangle]
pub unsafe extern "C" fn temper_tokenizer_decode(
    tokenizer: *const Tokenizer,
    ids: *const u32,
    count: usize,
    skip_special_tokens: bool,
    out: *mut Bytes,
) -> bool {
    let ids = if count == 0 { &[] } else { std::slice::from_raw_parts(ids, count) };
    fill(out, || Ok((*tokenizer).decode(ids, skip_special_tokens)?.into_bytes()))
}

#[no_mangle]
pub unsafe extern "C" fn temper_tokenizer_vocabulary(tokenizer: *const Tokenizer, out: *mut Bytes) -> bool {
    fill(out, || Ok((*tokenizer).vocabulary_json().into_bytes()))
}

#[no_mangle]
pub unsafe extern "C" fn temper_tokenizer_token_to_id(
    tokenizer: *const Tokenizer,
    token: *const u8,
    size: usize,
    id: *mut u32,
) -> bool {
    let found = catch_unwind(|| (*tokenizer).token_to_id(text(token, size).ok()?)).ok().flatten();
    found.map(|found| id.write(found)).is_some()
}

#[no_mangle]
pub unsafe extern "C" fn temper_tokenizer_id_to_token(tokenizer: *const Tokenizer, id: u32, out: *mut Bytes) -> bool {
    fill(out, || (*tokenizer).id_to_token(id).map(String::into_bytes).ok_or_else(|| format!("there is no token {id}")))
}

#[no_mangle]
pub unsafe extern "C" fn temper_chat_template_compile(
    source: *const u8,
    size: usize,
    now: i64,
    error: *mut Bytes,
) -> *mut ChatTemplate {
    let template = guarded(error, || ChatTemplate::compile(text(source, size)?, now));
    template.map_or(std::ptr::null_mut(), |template| Box::into_raw(Box::new(template)))
}

#[no_mangle]
pub unsafe extern "C" fn temper_chat_template_close(template: *mut ChatTemplate) {
    if !template.is_null() {
        drop(Box::from_raw(template));
    }
}

#[no_mangle]
pub unsafe extern "C" fn temper_chat_template_has_generation_tags(template: *const ChatTemplate) -> bool {
    (*template).has_generation_tags()
}

#[no_mangle]
pub unsafe extern "C" fn temper_chat_template_render(
    template: *const ChatTemplate,
    variables: *const u8,
    size: usize,
    out: *mut Bytes,
    spans: *mut Bytes,
) -> bool {
    let rendering = guarded(out, || (*template).render(text(variables, size)?));
    let Some(Rendering { text, generation_spans }) = rendering else {
        return false;
    };
    out.write(text.into_bytes().into());
    let borders = generation_spans.iter().flat_map(|&(begin, end)| [begin as u64, end as u64]);
    spans.write(borders.flat_map(u64::to_ne_bytes).collect::<Vec<u8>>().into());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error() {
        let mut error = Bytes { data: std::ptr::null_mut(), size: 0 };
        let result: Option<()> = unsafe { guarded(&mut error, || panic!("planted")) };
        let message = unsafe { text(error.data, error.size) }.unwrap();
        assert_eq!((result, message), (None, "the text library panicked: planted"));
        unsafe { temper_text_free(error) };
    }
}
