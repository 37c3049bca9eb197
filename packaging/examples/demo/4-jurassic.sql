-- AI21 Jurassic-2.
INSERT INTO interactions (model_id, content_type, accept, request_body, response_body) VALUES (
  'ai21.j2-ultra-v1', 'application/json', 'application/json',
  '{"prompt":"What is 2+2?","maxTokens":200,"temperature":0.7,"topP":1,"stopSequences":[],"countPenalty":{"scale":0},"presencePenalty":{"scale":0},"frequencyPenalty":{"scale":0}}',
  '{"id":1234,"prompt":{"text":"What is 2+2?","tokens":[{"generatedToken":{"token":"▁What","logprob":-9.108722686767578,"raw_logprob":-9.108722686767578},"topTokens":null,"textRange":{"start":0,"end":4}}]},"completions":[{"data":{"text":"\n4","tokens":[{"generatedToken":{"token":"<|newline|>","logprob":0.0,"raw_logprob":-0.01293118204921484},"topTokens":null,"textRange":{"start":0,"end":1}}]},"finishReason":{"reason":"endoftext"}}]}'
);
