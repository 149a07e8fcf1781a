// SPDX-License-Identifier: Apache-2.0
//! A tokenizer as `tokenizer.json` describes it, set up the way transformers calls it: no truncation, no padding.

use serde_json::json;
use tokenizers::AddedToken;

pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
}

/// One token and the bytes of the text that it stands for.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub id: u32,
    pub begin: u32,
    pub end: u32,
}

impl Tokenizer {
    pub fn from_json(json: &[u8]) -> Result<Self, String> {
        let mut inner = tokenizers::Tokenizer::from_bytes(json).map_err(|error| error.to_string())?;
        // A saved tokenizer may carry the settings of its last call; transformers resets them at each call.
        inner.with_truncation(None).map_err(|error| error.to_string())?;
        inner.with_padding(None);
        Ok(Self { inner })
    }

    /// Adds the tokens of a JSON list of `AddedToken`s that are missing; the ids follow the highest one.
    pub fn add_tokens(&mut self, tokens: &[u8]) -> Result<(), String> {
        let tokens: Vec<AddedToken> = serde_json::from_slice(tokens).map_err(|error| error.to_string())?;
        for token in tokens {
            if self.inner.token_to_id(&token.content).is_none() {
                self.inner.add_tokens(&[token]);
            }
        }
        Ok(())
    }

    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<Token>, String> {
        let encoding = self.inner.encode(text, add_special_tokens).map_err(|error| error.to_string())?;
        let offsets = encoding.get_offsets().iter();
        Ok(encoding
            .get_ids()
            .iter()
            .zip(offsets)
            .map(|(&id, &(begin, end))| Token { id, begin: begin as u32, end: end as u32 })
            .collect())
    }

    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String, String> {
        self.inner.decode(ids, skip_special_tokens).map_err(|error| error.to_string())
    }

    /// `{"size": tokens, "max_id": highest id, "added": [{"id", "content", "special"}, …]}`
    pub fn vocabulary_json(&self) -> String {
        let vocabulary = self.inner.get_vocab(true);
        let mut added: Vec<_> = self.inner.get_added_tokens_decoder().into_iter().collect();
        added.sort_by_key(|(id, _)| *id);
        let added: Vec<_> = added
            .into_iter()
            .map(|(id, token)| json!({"id": id, "content": token.content, "special": token.special}))
            .collect();
        json!({"size": vocabulary.len(), "max_id": vocabulary.values().max(), "added": added}).to_string()
    }

    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Tokenizer {
        Tokenizer::from_json(
            br#"{"version": "1.0",
                 "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
                 "padding": {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
                             "pad_type_id": 0, "pad_token": "<unk>"},
                 "added_tokens": [{"id": 3, "content": "<end>", "single_word": false, "lstrip": false, "rstrip": false,
                                   "normalized": false, "special": true}],
                 "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
                 "model": {"type": "WordLevel", "vocab": {"<unk>": 0, "caf\u00e9": 1, "noir": 2}, "unk_token": "<unk>"}}"#,
        )
        .unwrap()
    }

    #[test]
    fn encode_gives_byte_offsets_and_ignores_saved_truncation_and_padding() {
        let tokens = words().encode("café noir noir<end>", false).unwrap();
        let expected = [(1, 0, 5), (2, 6, 10), (2, 11, 15), (3, 15, 20)];
        assert_eq!(tokens, expected.map(|(id, begin, end)| Token { id, begin, end }));
    }

    #[test]
    fn add_tokens_adds_only_what_is_missing() {
        let mut tokenizer = words();
        let token = |content: &str| {
            json!({"content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                   "special": true})
        };
        let tokens = json!([token("<end>"), token("<start>")]).to_string();
        tokenizer.add_tokens(tokens.as_bytes()).unwrap();
        assert_eq!(tokenizer.token_to_id("<end>"), Some(3));
        assert_eq!(tokenizer.token_to_id("<start>"), Some(4));
        let vocabulary: serde_json::Value = serde_json::from_str(&tokenizer.vocabulary_json()).unwrap();
        assert_eq!((&vocabulary["size"], &vocabulary["max_id"]), (&json!(5), &json!(4)));
    }

    #[test]
    fn malformed_json_is_an_error() {
        assert!(Tokenizer::from_json(b"{\"model\": 1}").is_err());
    }
}
