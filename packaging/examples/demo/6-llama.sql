-- Meta Llama 2.
INSERT INTO interactions (model_id, content_type, accept, request_body, response_body) VALUES (
  'meta.llama2-13b-chat-v1', 'application/json', 'application/json',
  '{"prompt":"<s>[INST] <<SYS>>\nYou are helpful.\n<</SYS>>\n\nHi [/INST]","max_gen_len":512,"temperature":0.5,"top_p":0.9}',
  '{"generation":"\n\nHello! How can I help you today?","prompt_token_count":28,"generation_token_count":12,"stop_reason":"stop"}'
);
