#!lua flags=allow-oom
-- FORGET id... -> how many ended jobs were dropped with their events; others stay
local dropped = 0
for _, id in ipairs(ARGV) do
  local status = redis.call('HGET', job_key(id), 'status')
  if status == 'completed' or status == 'failed' or status == 'cancelled' then
    redis.call('DEL', job_key(id), events_key(id))
    dropped = dropped + 1
  end
end
return dropped
