-- Mistral.
INSERT INTO interactions (model_id, content_type, accept, request_body, response_body) VALUES (
  'mistral.mistral-7b-instruct-v0:2', 'application/json', 'application/json',
  '{"prompt":"<s>[INST] What is your favourite condiment? [/INST]","max_tokens":200,"temperature":0.5,"top_p":0.9,"top_k":50}',
  '{"outputs":[{"text":" Mayonnaise, of course.","stop_reason":"stop"}]}'
);
