-- STEER id, expected rev, plan JSON, its rev -> 'steered', 'stale', 'missing', or how the job ended
-- No allow-oom: as a new job, a new plan may need room.
local id, expected, plan, rev = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local row = redis.call('HMGET', job_key(id), 'status', 'plan_rev', 'plan')
local status = row[1]
if not status then return 'missing' end
if status ~= 'queued' and status ~= 'running' then return status end
-- Our own call again because the reply was lost.
if row[2] == rev and row[3] == plan then return 'steered' end
if row[2] ~= expected then return 'stale' end
redis.call('HSET', job_key(id), 'plan', plan, 'plan_rev', rev)
tell(id, 'steered', '{"plan":' .. plan .. '}')
if status == 'running' then redis.call('PUBLISH', CONTROL, 'steer ' .. id .. ' ' .. rev) end
return 'steered'
