#!lua flags=allow-oom
-- BEAT id, fence, rev of the plan that the owner knows or ''[, event type, body, '1' with a preview]
--   -> 'go', 'cancel' or 'lost'
local id, fence, rev = ARGV[1], ARGV[2], ARGV[3]
local row = redis.call('HMGET', job_key(id),
  'fence', 'status', 'lane', 'entry', 'cancel', 'preview', 'plan_rev')
if row[1] ~= fence or row[2] ~= 'running' then return 'lost' end
-- JUSTID resets the idle time and leaves the delivery count alone.
redis.call('XCLAIM', lane_key(row[3]), GROUP, CONSUMER, 0, row[4], 'JUSTID')
if ARGV[4] then
  local entry = tell(id, ARGV[4], ARGV[5])
  if ARGV[6] == '1' then
    -- Only the newest picture is kept: a thousand of 32 kB a job would fill the server.
    if row[6] then redis.call('XDEL', events_key(id), row[6]) end
    redis.call('HSET', job_key(id), 'preview', entry)
  end
end
-- The owner missed it: nothing keeps what is published for who does not listen at that moment.
if row[7] and row[7] ~= rev then redis.call('PUBLISH', CONTROL, 'steer ' .. id .. ' ' .. row[7]) end
return row[5] == '1' and 'cancel' or 'go'
