// SPDX-License-Identifier: Apache-2.0
//! Hugging Face tokenizers and chat templates for temper, behind a C ABI (`ffi`, declared in worker/text/temper_text.h).

pub mod chat_template;
pub mod ffi;
pub mod generation_tags;
pub mod python_json;
pub mod python_text;
pub mod tokenizer;
