#!lua flags=allow-oom
-- FINISH id, fence, how, body, limit, delay ms -> what became of the job, or 'refused'
--   how: completed, cancelled, failed (body: the event), or
--        retry (body: the failed event; limit: retries; delay), crash (body: reason; limit:
--        crashes), requeue (body: reason)
--   reply: completed, cancelled, failed, queued, refused
local id, fence, how, body = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local limit, delay_ms = tonumber(ARGV[5]), tonumber(ARGV[6])
local row = redis.call('HMGET', job_key(id),
  'fence', 'status', 'lane', 'entry', 'cancel', 'retries')
-- A stale owner, or our own call again because the reply was lost.
if row[1] ~= fence or row[2] ~= 'running' then return 'refused' end
local lane = row[3]
drop(lane, row[4])

if how == 'completed' or how == 'cancelled' or how == 'failed' then
  close(id, how, body)
  return how
end
local crashes = how == 'crash' and redis.call('HINCRBY', job_key(id), 'crashes', 1) or 0
-- It would run again, but somebody asked for its end.
if row[5] == '1' then
  close(id, 'cancelled', '{}')
  return 'cancelled'
end
if how == 'crash' and crashes >= limit then
  bury(id, crashes, body)
  return 'failed'
end
if how == 'retry' then
  if tonumber(row[6]) >= limit then
    close(id, 'failed', body)
    return 'failed'
  end
  redis.call('HINCRBY', job_key(id), 'fence', 1)
  redis.call('HINCRBY', job_key(id), 'retries', 1)
  redis.call('HSET', job_key(id), 'status', 'queued', 'owner', '', 'entry', '')
  redis.call('ZADD', DELAYED, now() + delay_ms, id)
  tell(id, 'requeued', cjson.encode({reason = cjson.decode(body).message}))
  return 'queued'
end
requeue(id, lane, body)
return 'queued'
