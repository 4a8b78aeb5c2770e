#!lua flags=allow-oom
-- CANCEL id, lease ms -> 'cancelled', 'cancelling', 'missing', or how the job had ended before
local id, lease_ms = ARGV[1], tonumber(ARGV[2])
local row = redis.call('HMGET', job_key(id), 'status', 'lane', 'entry')
local status, lane, entry = row[1], row[2], row[3]
if not status then return 'missing' end
if status == 'queued' then
  drop(lane, entry)
  redis.call('ZREM', DELAYED, id)
  close(id, 'cancelled', '{}')
  return 'cancelled'
end
if status ~= 'running' then return status end

-- Nobody may be left to see the flag.
local pending = redis.call('XPENDING', lane_key(lane), GROUP, entry, entry, 1)[1]
if pending and pending[3] > lease_ms and may_reclaim(lease_ms) then
  drop(lane, entry)
  close(id, 'cancelled', '{}')
  return 'cancelled'
end
redis.call('HSET', job_key(id), 'cancel', '1')
redis.call('PUBLISH', CONTROL, 'cancel ' .. id)
return 'cancelling'
