INSERT INTO interactions (model_id, session, session_timeout, request_body, response_body) VALUES (
  'anthropic.claude-v2:1', 'CHAT-7', 30,
  '{"prompt":"\n\nHuman: Name a river in France.\n\nAssistant: The Loire.\n\nHuman: How long is it?\n\nAssistant: About 1,000 kilometres.\n\nHuman: Thank you!\n\nAssistant:","max_tokens_to_sample":50}',
  '{"completion":" You are welcome.","stop_reason":"stop_sequence","stop":"\n\nHuman:"}'
);
