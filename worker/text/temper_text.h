// SPDX-License-Identifier: Apache-2.0
#pragma once

// The C ABI of the Rust crate in rust/. Only tokenizer.cc and chat_template.cc use it.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// A buffer of the library's. Each one that is filled in must be given back once.
typedef struct {
  uint8_t* data;
  size_t size;
} temper_text_bytes;
void temper_text_free(temper_text_bytes bytes);

// Functions that return false or NULL have put the error's text into their `error` or `out`. Handles that are const
// may be used by several threads at once.

typedef struct temper_tokenizer temper_tokenizer;
temper_tokenizer* temper_tokenizer_open(const uint8_t* json, size_t size, temper_text_bytes* error);
void temper_tokenizer_close(temper_tokenizer* tokenizer);
// `json` is a list of tokens in the form of tokenizer.json's `added_tokens`; those that exist are left alone.
bool temper_tokenizer_add_tokens(temper_tokenizer* tokenizer, const uint8_t* json, size_t size,
                                 temper_text_bytes* error);
// `out`: three uint32_t a token (id, first byte, end) in the machine's byte order.
bool temper_tokenizer_encode(const temper_tokenizer* tokenizer, const uint8_t* text, size_t size,
                             bool add_special_tokens, temper_text_bytes* out);
bool temper_tokenizer_decode(const temper_tokenizer* tokenizer, const uint32_t* ids, size_t count,
                             bool skip_special_tokens, temper_text_bytes* out);
// `out`: {"size": tokens, "max_id": highest id, "added": [{"id": …, "content": "…", "special": …}, …]}
bool temper_tokenizer_vocabulary(const temper_tokenizer* tokenizer, temper_text_bytes* out);
// False: no such token (and no text).
bool temper_tokenizer_token_to_id(const temper_tokenizer* tokenizer, const uint8_t* token, size_t size, uint32_t* id);
bool temper_tokenizer_id_to_token(const temper_tokenizer* tokenizer, uint32_t id, temper_text_bytes* out);

typedef struct temper_chat_template temper_chat_template;
// `now`: seconds since 1970, for strftime_now.
temper_chat_template* temper_chat_template_compile(const uint8_t* source, size_t size, int64_t now,
                                                   temper_text_bytes* error);
void temper_chat_template_close(temper_chat_template* chat_template);
bool temper_chat_template_has_generation_tags(const temper_chat_template* chat_template);
// `variables` is a JSON object. `spans`: two uint64_t (first byte, end) a {% generation %} block; untouched on failure.
bool temper_chat_template_render(const temper_chat_template* chat_template, const uint8_t* variables, size_t size,
                                 temper_text_bytes* out, temper_text_bytes* spans);

#ifdef __cplusplus
}
#endif
