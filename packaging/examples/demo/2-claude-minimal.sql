-- The least that a row needs. What is not given is not sent.
INSERT INTO interactions (model_id, request_body, response_body) VALUES (
  'anthropic.claude-instant-v1',
  '{"prompt":"\n\nHuman: Hello\n\nAssistant:","max_tokens_to_sample":9}',
  '{"completion":" Hello!","stop_reason":"stop_sequence"}'
);
