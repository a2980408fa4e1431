def test_smoke(tiny_loaded, tiny_adapter, tiny_plain_tokenizer):
    print(tiny_loaded.n_parameters, len(tiny_loaded.tokenizer), tiny_loaded.tokenizer("the cat sat ü")["input_ids"])
    print(tiny_loaded.tokenizer.convert_ids_to_tokens(range(5)), list(tiny_adapter.iterdir()))
    assert tiny_loaded.tokenizer.eos_token_id == 2
